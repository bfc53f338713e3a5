#include <algorithm>
#include <atomic>

#include "kernels/codec/bit_packing.h"
#include "kernels/codec/random_words.h"
#include "kernels/core/simd.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/fp4_groups_internal.h"
#include "kernels/quant/nvfp4_post_hoc_formula.h"
#include "kernels/quant/nvfp4_post_hoc_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kBlockGroups = kFloatBlock / kNvGroup;

TY_SIMD void GroupSteps(const float* x, int64_t groups, float clip, float* steps) {
  for (int64_t g = 0; g < groups; ++g) steps[g] = NvPostHocStep(NvGroupLargest(x + g * kNvGroup), clip);
}

TY_SIMD void InUnits(const float* x, const float* steps, int64_t groups, float* u) {
  for (int64_t g = 0; g < groups; ++g) {
    const float inverse = 1.0f / steps[g];
    for (int64_t i = g * kNvGroup; i < (g + 1) * kNvGroup; ++i) u[i] = x[i] * inverse;
  }
}

TY_SIMD void PseudoScales(const float* u, const float* levels, const float* steps, int64_t groups, BFloat16* pseudo) {
  for (int64_t g = 0; g < groups; ++g) {
    const float squares = NvGroupDot(u + g * kNvGroup, u + g * kNvGroup);
    const float products = NvGroupDot(u + g * kNvGroup, levels + g * kNvGroup);
    pseudo[g] = NvPseudoScale(steps[g], squares, products);
  }
}

// Codes and pseudo scales of elements first .. first + count - 1; `values` gets bare levels. Returns the bits of the
// largest pseudo scale.
uint32_t FirstPass(const NvPostHocArgs& args, int64_t first, int64_t count) {
  float loaded[kFloatBlock];
  float u[kFloatBlock];
  float level_buffer[kFloatBlock];
  float steps[kBlockGroups];
  const int64_t groups = count / kNvGroup;
  const float* x = LoadFloats(args.x, first, count, loaded);
  GroupSteps(x, groups, args.eden_clip, steps);
  InUnits(x, steps, groups, u);
  float* levels = args.values ? FloatsOf(args.values, first, level_buffer) : level_buffer;
  Fp4NearestLevels(u, count, levels);
  if (args.packed) {
    uint8_t codes[kFloatBlock];
    Fp4NearestCodes(levels, count, codes);
    PackCodes(codes, count, 4, args.packed.as<uint8_t>() + first / 2);
  }
  BFloat16* pseudo = args.pseudo_scales.as<BFloat16>() + first / kNvGroup;
  PseudoScales(u, levels, steps, groups, pseudo);
  if (args.values) StoreFloats(levels, args.values, first, count);
  uint32_t largest = 0;
  for (int64_t g = 0; g < groups; ++g) largest = std::max<uint32_t>(largest, pseudo[g].bits & 0x7FFF);
  return largest;
}

// Scales of the groups of elements first .. first + count - 1, and with them values.
void SecondPass(const NvPostHocArgs& args, float tensor_scale, int64_t first, int64_t count) {
  const int64_t groups = count / kNvGroup;
  uint32_t buffer[RandomBufferWords(kBlockGroups)];
  const uint32_t* words = RandomWords(args.random, static_cast<uint64_t>(first / kNvGroup), groups, buffer);
  const BFloat16* pseudo = args.pseudo_scales.as<BFloat16>() + first / kNvGroup;
  float scales[kBlockGroups];
  for (int64_t g = 0; g < groups; ++g) {
    const Float8E4M3 scale = NvAlignedScale(pseudo[g], tensor_scale, words[g]);
    if (args.scales) args.scales.as<Float8E4M3>()[first / kNvGroup + g] = scale;
    scales[g] = WidenToFloat(scale);
  }
  if (!args.values) return;
  float loaded[kFloatBlock];
  const float* levels = LoadFloats(args.values, first, count, loaded);
  float* values = FloatsOf(args.values, first, loaded);
  Fp4ScaleLevels(levels, scales, count, kNvGroup, values);
  StoreFloats(values, args.values, first, count);
}

}  // namespace

void NvPostHocQuantizeCpu(const NvPostHocArgs& args, Stream& stream) {
  const auto for_blocks = [&](const auto& body) {
    stream.pool().ParallelFor(args.x.size(), 8 * kFloatBlock, [&](int64_t begin, int64_t end) {
      for (int64_t first = begin; first < end; first += kFloatBlock) body(first, std::min(kFloatBlock, end - first));
    });
  };
  std::atomic<uint32_t> largest{0};  // bits of bf16, whose order is that of the numbers, NaN above all
  for_blocks([&](int64_t first, int64_t count) {
    const uint32_t bits = FirstPass(args, first, count);
    uint32_t seen = largest.load(std::memory_order_relaxed);
    while (seen < bits && !largest.compare_exchange_weak(seen, bits, std::memory_order_relaxed)) {
    }
  });
  const float tensor_scale = NvPostHocTensorScale(largest.load());
  args.tensor_scale.as<float>()[0] = tensor_scale;
  for_blocks([&](int64_t first, int64_t count) { SecondPass(args, tensor_scale, first, count); });
}

}  // namespace trainyard::kernels::internal
