#pragma once

#include "kernels/codec/squared_distance.h"

namespace trainyard::kernels::internal {

inline constexpr int64_t kDistancePiece = 4096;  // elements that one row of 32 sums covers

double SquaredDistanceCpu(const SquaredDistanceArgs& args, Stream& stream);
double SquaredNormCpu(const TensorView& a, Stream& stream);
double SquaredDistanceCuda(const SquaredDistanceArgs& args, Stream& stream);
double SquaredNormCuda(const TensorView& a, Stream& stream);

}  // namespace trainyard::kernels::internal
