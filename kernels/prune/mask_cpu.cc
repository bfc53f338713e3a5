#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "kernels/codec/bit_packing.h"
#include "kernels/core/simd.h"
#include "kernels/prune/mask.h"
#include "kernels/prune/stored_tensor.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void Apply(const uint8_t* kept, int64_t count, float* x) {
  for (int64_t i = 0; i < count; ++i) x[i] = kept[i] != 0 ? x[i] : 0.0f;
}

TY_SIMD void Apply(const uint8_t* kept, int64_t count, BFloat16* x) {
  for (int64_t i = 0; i < count; ++i) x[i].bits = kept[i] != 0 ? x[i].bits : uint16_t{0};
}

uint64_t WordAt(const uint8_t* bytes, int64_t count) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, static_cast<size_t>(std::min<int64_t>(count, 8)));
  return word;
}

}  // namespace

void MaskApplyCpu(const MaskApplyArgs& args, Stream& stream) {
  stream.pool().ParallelFor(args.x.size(), kPruneGrain, [&](int64_t range_begin, int64_t range_end) {
    alignas(64) uint8_t kept[kPruneBlock];
    for (int64_t begin = range_begin; begin < range_end; begin += kPruneBlock) {
      const int64_t count = std::min(kPruneBlock, range_end - begin);
      UnpackCodes(args.mask.as<uint8_t>() + begin / 8, count, 1, kept);
      if (args.x.dtype() == DType::kF32) {
        Apply(kept, count, args.x.as<float>() + begin);
      } else {
        Apply(kept, count, args.x.as<BFloat16>() + begin);
      }
    }
  });
}

void MaskCompareCpu(const MaskCompareArgs& args, Stream& stream) {
  const uint8_t* const a = args.a.as<uint8_t>();
  const uint8_t* const b = args.b.as<uint8_t>();
  std::atomic<uint32_t> differing{0}, both{0}, either{0};
  stream.pool().ParallelFor(args.a.size(), kPruneGrain, [&](int64_t begin, int64_t end) {
    uint32_t sums[3] = {};
    for (int64_t i = begin; i < end; i += 8) {
      const uint64_t left = WordAt(a + i, end - i), right = WordAt(b + i, end - i);
      sums[0] += static_cast<uint32_t>(std::popcount(left ^ right));
      sums[1] += static_cast<uint32_t>(std::popcount(left & right));
      sums[2] += static_cast<uint32_t>(std::popcount(left | right));
    }
    differing += sums[0];
    both += sums[1];
    either += sums[2];
  });
  uint32_t* const counts = args.counts.as<uint32_t>();
  counts[0] = differing;
  counts[1] = both;
  counts[2] = either;
}

void MaskReplaceCpu(const MaskReplaceArgs& args, Stream& stream) {
  MaskCompareCpu({.a = args.mask, .b = args.next, .counts = args.counts}, stream);
  std::copy_n(args.next.as<uint8_t>(), args.next.size(), args.mask.as<uint8_t>());
}

}  // namespace trainyard::kernels::internal
