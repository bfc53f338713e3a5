#pragma once

#include "kernels/tangent/sequence_embedding.h"

namespace trainyard::kernels::internal {

void LastTangentsCpu(const Dual<float>& states, float* out, Stream& stream);
void LastTangentsCuda(const Dual<float>& states, float* out, Stream& stream);
void PositionMeanCpu(const PositionMeanArgs& args, Stream& stream);
void PositionMeanCuda(const PositionMeanArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
