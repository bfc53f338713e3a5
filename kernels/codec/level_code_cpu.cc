#include <algorithm>
#include <array>
#include <limits>

#include "kernels/codec/level_code_internal.h"
#include "kernels/codec/random_words.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {
namespace {

// The levels, then infinities: so the search needs no bound, and nothing goes above the last level.
using LevelTable = std::array<float, kMostLevels + 1>;

LevelTable TableOf(absl::Span<const float> levels) {
  LevelTable table;
  table.fill(std::numeric_limits<float>::infinity());
  std::copy(levels.begin(), levels.end(), table.begin());
  return table;
}

// Up to 16 levels each is compared with, in registers; beyond that a search by halves, whose loads are gathers. Bytes
// may alias anything: without __restrict, and without loops that are unrolled first, nothing here vectorises.
template <int kSlots>
TY_INLINE void CodesBlock(const float* __restrict x, const uint32_t* __restrict words, float norm,
                          const float* __restrict levels, int64_t count, uint8_t* __restrict codes) {
  constexpr int kIndexBits = __builtin_ctz(kSlots);
  for (int64_t i = 0; i < count; ++i) {
    const float u = __builtin_fabsf(x[i]) / norm;
    int32_t index = 0;
    float low = 0.0f;
    float high = levels[1];
    if constexpr (kSlots <= 16) {
#pragma GCC unroll 16
      for (int k = 1; k < kSlots; ++k) {
        const float level = levels[k];
        const float next = levels[k + 1];
        index += u >= level ? 1 : 0;
        low = u >= level ? level : low;
        high = u >= level ? next : high;
      }
    } else {
#pragma GCC unroll 8
      for (int step = 0; step < kIndexBits; ++step) {
        const int32_t half = kSlots >> (step + 1);
        const float above = u - levels[index + half];  // its sign rather than a comparison, which would branch
        index += half & ~(__builtin_bit_cast(int32_t, above) >> 31);
      }
      low = levels[index];
      high = levels[index + 1];
    }
    index += GoesToUpperLevel(u, low, high, ToUniform(words[i])) ? 1 : 0;
    codes[i] = static_cast<uint8_t>(SignedCode(x[i], index, kSlots));
  }
}

#define TY_LEVEL_CODES(slots)                                                                                      \
  TY_SIMD void Codes##slots(const float* x, const uint32_t* words, float norm, const float* levels, int64_t count, \
                            uint8_t* codes) {                                                                      \
    CodesBlock<slots>(x, words, norm, levels, count, codes);                                                       \
  }
TY_LEVEL_CODES(2)
TY_LEVEL_CODES(4)
TY_LEVEL_CODES(8)
TY_LEVEL_CODES(16)
TY_LEVEL_CODES(32)
TY_LEVEL_CODES(64)
TY_LEVEL_CODES(128)
#undef TY_LEVEL_CODES

using CodesFunction = void (*)(const float* x, const uint32_t* words, float norm, const float* levels, int64_t count,
                               uint8_t* codes);
constexpr CodesFunction kCodes[] = {nullptr, nullptr, Codes2, Codes4, Codes8, Codes16, Codes32, Codes64, Codes128};

TY_SIMD void Values(const uint8_t* __restrict codes, float norm, const float* __restrict levels, int32_t sign_bit,
                    int64_t count, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = LevelValue(codes[i], sign_bit, levels, norm);
}

}  // namespace

void LevelEncodeCpu(const LevelEncodeArgs& args, Stream& stream) {
  const float* x = args.x.as<float>();
  const LevelTable table = TableOf(args.format.levels);
  const BucketWire wire = args.format.WireOf(args.x.size());
  EncodeBuckets<float>(
      wire, args.wire.as<uint8_t>(), stream,
      [&](int64_t begin, int64_t count) { return BucketNorm(x + begin, count, args.format.norm); },
      [&](float norm, int64_t begin, int64_t count, uint8_t* codes) {
        if (!(norm > 0.0f)) {
          std::memset(codes, 0, static_cast<size_t>(count));
          return;
        }
        uint32_t buffer[RandomBufferWords(kCodeChunk)];
        const uint64_t first = static_cast<uint64_t>(args.first_element + begin);
        const uint32_t* words = RandomWords(args.random, first, count, buffer);
        kCodes[wire.bits](x + begin, words, norm, table.data(), count, codes);
      });
}

void LevelDecodeCpu(const LevelDecodeArgs& args, Stream& stream) {
  float* y = args.y.as<float>();
  // A slot that no level fills is never encoded; if damage names it, the value must not be a finite one.
  const LevelTable table = TableOf(args.format.levels);
  const BucketWire wire = args.format.WireOf(args.y.size());
  DecodeBuckets<float>(wire, args.wire.as<uint8_t>(), stream,
                       [&](float norm, int64_t begin, int64_t count, const uint8_t* codes) {
                         Values(codes, norm, table.data(), 1 << (wire.bits - 1), count, y + begin);
                       });
}

}  // namespace trainyard::kernels::internal
