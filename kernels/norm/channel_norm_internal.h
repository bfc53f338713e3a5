#pragma once

#include "kernels/core/simd.h"
#include "kernels/norm/channel_norm.h"

namespace trainyard::kernels::internal {

// The rows of pixels that are normalised together: set s has `count` rows, row(s, i) of channel row % channels.
struct ChannelSets {
  ChannelSets(ChannelNormKind kind, int64_t groups, const TensorView& x)
      : is_group(kind == ChannelNormKind::kGroup),
        channels(x.dim(1)),
        pixels(x.dim(2)),
        number(ChannelNormStatisticsCount(kind, groups, x.dim(0), channels)),
        count(is_group ? channels / groups : x.dim(0)) {}
  TY_INLINE int64_t row(int64_t set, int64_t i) const { return is_group ? set * count + i : i * channels + set; }
  TY_INLINE double values() const { return static_cast<double>(count * pixels); }
  bool is_group;
  int64_t channels, pixels, number, count;
};

// dx = scale dy - (offset + n slope), with n = (x - mean) inv_std.
struct RowGradient {
  float mean, inv_std, scale, offset, slope;
  TY_INLINE float At(float x, float dy) const { return scale * dy - (offset + (x - mean) * inv_std * slope); }
};

void ChannelNormForwardCpu(const ChannelNormForwardArgs& args, Stream& stream);
void ChannelNormBackwardCpu(const ChannelNormBackwardArgs& args, Stream& stream);
void ChannelNormForwardCuda(const ChannelNormForwardArgs& args, Stream& stream);
void ChannelNormBackwardCuda(const ChannelNormBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
