#include <cmath>

#include "kernels/loss/gradient_penalty_internal.h"

namespace trainyard::kernels::internal {

void GradientPenaltyCpu(const GradientPenaltyArgs& args, Stream& stream) {
  const int64_t rows = args.deviations.size(), cols = args.gradient.size() / rows;
  stream.pool().ParallelFor(rows, 1 + 8192 / cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* const g = args.gradient.as<float>() + r * cols;
      double squares = 0;
      for (int64_t c = 0; c < cols; ++c) squares += static_cast<double>(g[c]) * static_cast<double>(g[c]);
      const double norm = std::sqrt(squares);
      const float factor = PenaltyFactor(norm, args.scale);
      for (int64_t c = 0; c < cols; ++c) g[c] *= factor;
      args.deviations.as<float>()[r] = static_cast<float>(norm - 1);
    }
  });
}

}  // namespace trainyard::kernels::internal
