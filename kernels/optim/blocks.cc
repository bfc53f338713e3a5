#include "kernels/optim/blocks.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/core/simd.h"
#include "kernels/quant/number_format.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void Widen(const BFloat16* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = ToFloat(x[i]);
}

TY_SIMD void NarrowNearest(const float* x, int64_t count, BFloat16* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<BFloat16>(x[i]);
}

constexpr int kWidth = 32;  // Philox blocks side by side

// words[4 i + j] is word j of RandomBlock(key, first_block + i), for whole groups of kWidth blocks. The rounds of
// Philox4x32 once more, since the compiler does not vectorise across calls of it: 9 times as fast.
TY_SIMD void FillWords(const PhiloxKey& key, uint32_t first_block, int64_t blocks, uint32_t* words) {
  for (int64_t begin = 0; begin < blocks; begin += kWidth) {
    uint32_t c0[kWidth], c1[kWidth], c2[kWidth], c3[kWidth];
    for (int i = 0; i < kWidth; ++i) {
      c0[i] = first_block + static_cast<uint32_t>(begin + i);
      c1[i] = key.tensor;
      c2[i] = key.step;
      c3[i] = (uint32_t{key.purpose} << 16) | key.micro_step;
    }
    uint32_t key0 = static_cast<uint32_t>(key.seed);
    uint32_t key1 = static_cast<uint32_t>(key.seed >> 32);
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < kWidth; ++i) {
        const uint64_t product0 = uint64_t{0xD2511F53} * c0[i];
        const uint64_t product1 = uint64_t{0xCD9E8D57} * c2[i];
        c0[i] = static_cast<uint32_t>(product1 >> 32) ^ c1[i] ^ key0;
        c2[i] = static_cast<uint32_t>(product0 >> 32) ^ c3[i] ^ key1;
        c1[i] = static_cast<uint32_t>(product1);
        c3[i] = static_cast<uint32_t>(product0);
      }
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    for (int i = 0; i < kWidth; ++i) {
      uint32_t* block = words + (begin + i) * 4;
      block[0] = c0[i];
      block[1] = c1[i];
      block[2] = c2[i];
      block[3] = c3[i];
    }
  }
}

TY_SIMD void NarrowStochastic(const float* x, const uint32_t* words, int64_t count, BFloat16* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = RoundStochastic<BFloat16>(x[i], words[i]);
}

}  // namespace

float* LoadBlock(const TensorView& x, int64_t begin, int64_t count, float* buffer) {
  TY_CHECK_LE(count, kBlock);
  if (x.dtype() == DType::kF32) return x.as<float>() + begin;
  Widen(x.as<BFloat16>() + begin, count, buffer);
  return buffer;
}

void StoreBlock(const float* block, const BlockRounding& how, int64_t begin, int64_t count, const TensorView& x) {
  if (x.dtype() == DType::kF32) {
    float* to = x.as<float>() + begin;
    if (to != block) std::memcpy(to, block, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  BFloat16* to = x.as<BFloat16>() + begin;
  if (how.rounding == Rounding::kNearestEven) return NarrowNearest(block, count, to);
  // Random words come in fours; the view need not begin at a multiple of four.
  const int64_t first = how.first_element + begin;
  const int64_t skipped = first % 4;
  alignas(64) uint32_t words[kBlock + 4 * kWidth];
  FillWords(how.random, static_cast<uint32_t>(first / 4), (skipped + count + 3) / 4, words);
  NarrowStochastic(block, words + skipped, count, to);
}

}  // namespace trainyard::kernels::internal
