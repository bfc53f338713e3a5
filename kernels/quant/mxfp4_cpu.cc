#include <algorithm>
#include <cstring>

#include "kernels/codec/bit_packing.h"
#include "kernels/codec/random_words.h"
#include "kernels/core/simd.h"
#include "kernels/quant/e2m1.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/fp4_groups_internal.h"
#include "kernels/quant/mxfp4_formula.h"
#include "kernels/quant/mxfp4_internal.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void ScaleCodes(const float* v, int64_t groups, const MxFormat& format, uint8_t* codes) {
  for (int64_t g = 0; g < groups; ++g) codes[g] = static_cast<uint8_t>(MxScaleCode(v + g * kMxGroup, format));
}

// u = v range / scale: scaling by a power of two is exact, so there is one rounding at most.
TY_SIMD void InUnits(const float* v, const uint8_t* scales, int64_t groups, float range, float* u) {
  for (int64_t g = 0; g < groups; ++g) {
    const float inverse = E8M0Inverse(scales[g]);
    for (int64_t i = g * kMxGroup; i < (g + 1) * kMxGroup; ++i) u[i] = v[i] * inverse * range;
  }
}
TY_SIMD void InsideMask(const float* u, int64_t count, uint8_t* inside) {
  for (int64_t i = 0; i < count; ++i) inside[i] = __builtin_fabsf(u[i]) < kE2M1Largest ? 1 : 0;
}

// count <= kFloatBlock elements from `first`, whole groups.
void QuantizeBlock(const MxQuantizeArgs& args, int64_t first, int64_t count) {
  float loaded[kFloatBlock];
  float u[kFloatBlock];
  uint8_t scales[kFloatBlock / kMxGroup];
  uint8_t codes[kFloatBlock];
  const int64_t groups = count / kMxGroup;
  const float* v = LoadFloats(args.v, first, count, loaded);
  ScaleCodes(v, groups, args.format, scales);
  InUnits(v, scales, groups, args.format.Range(), u);
  if (args.mask) {
    InsideMask(u, count, codes);
    PackCodes(codes, count, 1, args.mask.as<uint8_t>() + first / 8);
  }
  float* levels = u;
  if (args.format.rounding == Rounding::kNearestEven) {
    Fp4NearestLevels(u, count, levels);
  } else {
    uint32_t words[RandomBufferWords(kFloatBlock)];
    Fp4StochasticLevels(u, RandomWords(args.random, static_cast<uint64_t>(first), count, words), count, levels);
  }
  if (args.scales) std::memcpy(args.scales.as<uint8_t>() + first / kMxGroup, scales, static_cast<size_t>(groups));
  if (args.packed) {
    Fp4NearestCodes(levels, count, codes);
    PackCodes(codes, count, 4, args.packed.as<uint8_t>() + first / 2);
  }
  if (args.values) {
    float of_groups[kFloatBlock / kMxGroup];
    for (int64_t g = 0; g < groups; ++g) of_groups[g] = E8M0Value(scales[g]);
    float* values = FloatsOf(args.values, first, loaded);
    Fp4ScaleLevels(levels, of_groups, count, kMxGroup, values);
    StoreFloats(values, args.values, first, count);
  }
}

}  // namespace

void MxQuantizeCpu(const MxQuantizeArgs& args, Stream& stream) {
  stream.pool().ParallelFor(args.v.size(), 8 * kFloatBlock, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kFloatBlock) {
      QuantizeBlock(args, first, std::min(kFloatBlock, end - first));
    }
  });
}

}  // namespace trainyard::kernels::internal
