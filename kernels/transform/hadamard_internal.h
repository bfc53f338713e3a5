#pragma once

#include "kernels/transform/hadamard.h"

namespace trainyard::kernels::internal {

// The forward without signs of `count` floats, a multiple of `group`, on the caller's thread; for ops that rotate on
// the way. y may be x.
void RotateFloats(const float* x, int64_t count, int64_t group, float* y);

void HadamardCpu(const HadamardArgs& args, Stream& stream);
void RandomSignsCpu(const RandomSignsArgs& args, Stream& stream);
void HadamardCuda(const HadamardArgs& args, Stream& stream);
void RandomSignsCuda(const RandomSignsArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
