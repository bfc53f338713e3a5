#include <algorithm>
#include <cmath>

#include "kernels/tangent/sequence_embedding_internal.h"

namespace trainyard::kernels::internal {

void LastTangentsCpu(const Dual<float>& states, float* out, Stream& /*stream*/) {
  for (int64_t k = 0; k < states.tangents; ++k) {
    std::copy_n(states.tangent(k) + (states.rows - 1) * states.cols, states.cols, out + k * states.cols);
  }
}

void PositionMeanCpu(const PositionMeanArgs& args, Stream& /*stream*/) {
  const int64_t cols = args.states.cols;
  std::fill_n(args.sums, cols, 0.0);
  for (int64_t row = 0; row < args.states.rows; ++row) {
    const float* const values = args.states.value() + row * cols;
    for (int64_t c = 0; c < cols; ++c) args.sums[c] += static_cast<double>(row + 1) * double{values[c]};
  }
  double square = 0;
  for (int64_t c = 0; c < cols; ++c) square += args.sums[c] * args.sums[c];
  const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
  for (int64_t c = 0; c < cols; ++c) args.out[c] = static_cast<float>(args.sums[c] * scale);
}

}  // namespace trainyard::kernels::internal
