#pragma once

#include "kernels/norm/rms_norm.h"

namespace trainyard::kernels::internal {

// Rows that one partial sum of dw covers: at most kPartials partial sums, whatever the number of threads.
inline constexpr int64_t kRmsNormPartials = 64;
inline int64_t RmsNormRowsPerPartial(int64_t rows) {
  const int64_t share = (rows + kRmsNormPartials - 1) / kRmsNormPartials;
  return share < 8 ? 8 : share;
}
inline int64_t RmsNormPartialCount(int64_t rows) {
  const int64_t share = RmsNormRowsPerPartial(rows);
  return (rows + share - 1) / share;
}

// The same for a CUDA device, where a partial sum is a block's: enough of them to fill any GPU.
inline constexpr int64_t kRmsNormDevicePartials = 512;
inline int64_t RmsNormDeviceRowsPerPartial(int64_t rows) {
  const int64_t share = (rows + kRmsNormDevicePartials - 1) / kRmsNormDevicePartials;
  return share < 4 ? 4 : share;
}
inline int64_t RmsNormDevicePartialCount(int64_t rows) {
  const int64_t share = RmsNormDeviceRowsPerPartial(rows);
  return (rows + share - 1) / share;
}

void RmsNormForwardCpu(const RmsNormForwardArgs& args, Stream& stream);
void RmsNormBackwardCpu(const RmsNormBackwardArgs& args, Stream& stream);
void RmsNormForwardCuda(const RmsNormForwardArgs& args, Stream& stream);
void RmsNormBackwardCuda(const RmsNormBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
