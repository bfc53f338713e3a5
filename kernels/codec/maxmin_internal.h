#pragma once

#include "kernels/codec/maxmin.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {

// What an element adds to f (1 - f), or to min(f, 1 - f)^2: the product of the two. Positions beyond the last level
// have lost what is beyond. Sums take it with one rounding (a fused multiply-add), so that every backend has the same
// bits.
struct MaxminError {
  double a, b;
};
TY_INLINE MaxminError MaxminErrorOf(float position, bool is_nearest) {
  const float fraction = position - static_cast<float>(static_cast<int32_t>(position));
  const double up = static_cast<double>(fraction);
  const double down = 1.0 - up;
  const double nearest = up < down ? up : down;
  return is_nearest ? MaxminError{nearest, nearest} : MaxminError{up, down};
}

void MaxminEncodeCpu(const MaxminEncodeArgs& args, Stream& stream);
void MaxminDecodeCpu(const MaxminDecodeArgs& args, Stream& stream);
double MaxminSquaredErrorCpu(const MaxminErrorArgs& args, Stream& stream);
void MaxminEncodeCuda(const MaxminEncodeArgs& args, Stream& stream);
void MaxminDecodeCuda(const MaxminDecodeArgs& args, Stream& stream);
double MaxminSquaredErrorCuda(const MaxminErrorArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
