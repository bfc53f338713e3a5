#include <algorithm>

#include "kernels/codec/bit_packing.h"
#include "kernels/core/simd.h"
#include "kernels/quant/e2m1.h"
#include "kernels/quant/e8m0.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/fp4_groups_internal.h"

namespace trainyard::kernels::internal {
namespace {

template <int64_t kGroup>
TY_INLINE void ScaleGroups(const float* levels, const float* scales, int64_t count, float* values) {
  for (int64_t first = 0; first < count; first += kGroup) {
    const float scale = scales[first / kGroup];
#pragma GCC ivdep
    for (int64_t i = first; i < first + kGroup; ++i) values[i] = levels[i] * scale;
  }
}
TY_SIMD void ScaleGroupsOf16(const float* levels, const float* scales, int64_t count, float* values) {
  ScaleGroups<kNvGroup>(levels, scales, count, values);
}
TY_SIMD void ScaleGroupsOf32(const float* levels, const float* scales, int64_t count, float* values) {
  ScaleGroups<kMxGroup>(levels, scales, count, values);
}

TY_SIMD void LevelsOfCodes(const uint8_t* codes, int64_t count, float* levels) {
  for (int64_t i = 0; i < count; ++i) levels[i] = E2M1Value(codes[i]);
}

}  // namespace

// In place is well: without the pragmas equal pointers would take the loop that is not vectorised.
TY_SIMD void Fp4NearestLevels(const float* u, int64_t count, float* levels) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) levels[i] = E2M1Level(u[i]);
}

TY_SIMD void Fp4StochasticLevels(const float* u, const uint32_t* words, int64_t count, float* levels) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) levels[i] = E2M1Level(u[i], words[i]);
}

void Fp4ScaleLevels(const float* levels, const float* scales, int64_t count, int64_t group, float* values) {
  (group == kNvGroup ? ScaleGroupsOf16 : ScaleGroupsOf32)(levels, scales, count, values);
}

TY_SIMD void Fp4NearestCodes(const float* u, int64_t count, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) codes[i] = E2M1Code(u[i]);
}

void Fp4GroupsDequantizeCpu(const Fp4GroupsDequantizeArgs& args, Stream& stream) {
  const bool is_mx = args.scales.dtype() == DType::kU8;
  const int64_t group = is_mx ? kMxGroup : kNvGroup;
  const uint8_t* packed = args.packed.as<uint8_t>();
  stream.pool().ParallelFor(args.values.size(), 8 * kFloatBlock, [&](int64_t begin, int64_t end) {
    uint8_t codes[kFloatBlock];
    float scales[kFloatBlock / kNvGroup];
    float buffer[kFloatBlock];
    for (int64_t first = begin; first < end; first += kFloatBlock) {
      const int64_t count = std::min(kFloatBlock, end - first);
      UnpackCodes(packed + first / 2, count, 4, codes);
      for (int64_t g = 0; g < count / group; ++g) {
        const int64_t at = first / group + g;
        scales[g] = is_mx ? E8M0Value(args.scales.as<uint8_t>()[at]) : WidenToFloat(args.scales.as<Float8E4M3>()[at]);
      }
      float* values = FloatsOf(args.values, first, buffer);
      LevelsOfCodes(codes, count, values);
      Fp4ScaleLevels(values, scales, count, group, values);
      StoreFloats(values, args.values, first, count);
    }
  });
}

}  // namespace trainyard::kernels::internal
