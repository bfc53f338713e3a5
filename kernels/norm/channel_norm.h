// Normalisation of images, x: (batch, channels, pixels), by the mean and variance of a set of values:
//
//   GroupNorm (Wu and He, arXiv:1803.08494)         the pixels of `groups` equal runs of channels of one sample
//   BatchNorm (Ioffe and Szegedy, arXiv:1502.03167) the pixels of one channel in the whole batch
//
//   y = (x - mean) * inv_std * w[c] + b[c],   inv_std = 1 / sqrt(variance + eps), variance biased
//
// BatchNorm has no running averages here: it always uses the statistics of its batch. All tensors are f32; w, b:
// (channels). mean and inv_std, f32 of batch * groups or of channels elements, are kept for the backward. Sums are f32
// along a row of pixels and f64 beyond, in a fixed order: the same bits for any number of threads.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

enum class ChannelNormKind { kGroup, kBatch };

struct ChannelNormForwardArgs {
  ChannelNormKind kind = ChannelNormKind::kGroup;
  int64_t groups = 1;  // kGroup; divides the channels
  TensorView x, w, b;
  TensorView y;  // may alias x
  TensorView mean, inv_std;
  float eps = 1e-5f;
};
void ChannelNormForward(const ChannelNormForwardArgs& args, Stream& stream);

// With n = (x - mean) inv_std, g = dy w[c], and means over the set that x is normalised with:
//   dx = inv_std (g - mean(g) - n mean(g n)) (+ dx if accumulate)
//   dw[c] = sum of dy n, db[c] = sum of dy  (+ dw, db if accumulate_weights; both may be absent)
struct ChannelNormBackwardArgs {
  ChannelNormKind kind = ChannelNormKind::kGroup;
  int64_t groups = 1;
  TensorView x, w, mean, inv_std;
  TensorView dy;
  TensorView dx;  // may alias dy unless it accumulates
  bool accumulate = false;
  TensorView dw = {}, db = {};
  bool accumulate_weights = false;
  TensorView workspace;  // ChannelNormBackwardWorkspaceBytes
};
void ChannelNormBackward(const ChannelNormBackwardArgs& args, Stream& stream);

int64_t ChannelNormStatisticsCount(ChannelNormKind kind, int64_t groups, int64_t batch, int64_t channels);
int64_t ChannelNormBackwardWorkspaceBytes(int64_t batch, int64_t channels);

}  // namespace trainyard::kernels
