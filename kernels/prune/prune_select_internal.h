#pragma once

#include "kernels/core/simd.h"
#include "kernels/prune/prune_select.h"

namespace trainyard::kernels::internal {

// The two halves of a key: `high` is compared first.
TY_INLINE uint32_t MagnitudeBits(float w) {
  return __builtin_bit_cast(uint32_t, w) & 0x7FFFFFFF;
}
TY_INLINE uint32_t ScoreBits(float w, float fisher, float factor) {
  return __builtin_bit_cast(uint32_t, w * w * (fisher * factor)) & 0x7FFFFFFF;
}

// What is below this key is pruned, whatever becomes of ties: with all of them pruned, all below the next key.
TY_INLINE uint64_t FirstKeptKey(const SelectThreshold& threshold) {
  return threshold.ties == kAllTies ? threshold.key + 1 : threshold.key;
}

void PruneHistogramCpu(const PruneHistogramArgs& args, Stream& stream);
void PruneEqualCpu(const PruneEqualArgs& args, Stream& stream);
void PruneMaskCpu(const PruneMaskArgs& args, Stream& stream);
void PruneGroupsCpu(const PruneGroupsArgs& args, Stream& stream);
void PruneHistogramCuda(const PruneHistogramArgs& args, Stream& stream);
void PruneEqualCuda(const PruneEqualArgs& args, Stream& stream);
void PruneMaskCuda(const PruneMaskArgs& args, Stream& stream);
void PruneGroupsCuda(const PruneGroupsArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
