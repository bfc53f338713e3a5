// The levels of one matrix: which columns go, in one order for all levels, and what becomes of the rest (DarwinLM,
// arXiv:2502.07780, and its released code, fast_obc_struct.py).
//
// H is the inputs' second moment, (2 / N) sum X^T X. Columns that no input reaches (H_ii = 0) get H_ii = 1 and weights
// 0; columns of zero weights get the row and column of the unit matrix; then H_ii += relative_damping * mean(diag H),
// and columns are removed as obs_elimination.h says. The error of a level is half the sum of the scores so far: half of
// trace(dW H dW^T), which is the squared error of the outputs over N.
//
// With `by_magnitude` the groups go by the norm of their weights and the rest stays as it is: a baseline. Errors are
// those of that removal.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct ObsArgs {
  TensorView w;                       // f32 (rows, cols)
  TensorView hessian;                 // f32 (cols, cols)
  int64_t group = 1;                  // columns that go together: 1, or a head's
  absl::Span<const int32_t> removed;  // columns removed at each level: multiples of group, increasing
  double relative_damping = 0.01;
  bool by_magnitude = false;
  int64_t delay = 64;  // as ObsShape
};

struct ObsLevel {
  int64_t level = 0;
  double error = 0;
  std::vector<int32_t> kept;   // columns, ascending
  std::vector<float> weights;  // (rows, kept)
};

// Calls on_level for each level in turn and stops at the first error, which it returns. A level that removes nothing
// has the weights as they are, to the bit. FailedPrecondition for weights or inputs that are not finite, and for a
// Hessian that is not positive definite even with damping. The same bits for any number of threads.
absl::Status ObsLevels(const ObsArgs& args, absl::FunctionRef<absl::Status(const ObsLevel&)> on_level, Stream& stream);

// hessian += scale * x^T x. x: f32 (tokens, cols); hessian: f32 (cols, cols), of which at least the upper triangle by
// tiles is added to until MirrorHessian, on the host, has copied it down. Sums are cut by shape alone: the same bits
// for any number of threads.
struct AccumulateHessianArgs {
  TensorView x;
  TensorView hessian;
  float scale = 2.0f;
};
void AccumulateHessian(const AccumulateHessianArgs& args, Stream& stream);
void MirrorHessian(const TensorView& hessian, Stream& stream);

}  // namespace trainyard::kernels
