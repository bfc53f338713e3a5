#include "kernels/tangent/sequence_embedding.h"

#include "kernels/core/dispatch.h"
#include "kernels/tangent/sequence_embedding_internal.h"

namespace trainyard::kernels {

void LastTangents(const Dual<float>& states, float* out, Stream& stream) {
  TY_CHECK_GE(states.rows, 1);
  TY_SELECT(stream, LastTangents)(states, out, stream);
}

void PositionMean(const PositionMeanArgs& args, Stream& stream) {
  TY_SELECT(stream, PositionMean)(args, stream);
}

}  // namespace trainyard::kernels
