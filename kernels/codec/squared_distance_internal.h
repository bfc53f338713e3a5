#pragma once

#include "kernels/codec/squared_distance.h"

namespace trainyard::kernels::internal {

double SquaredDistanceCpu(const SquaredDistanceArgs& args, Stream& stream);
double SquaredNormCpu(const TensorView& a, Stream& stream);

}  // namespace trainyard::kernels::internal
