// Optimistic dual averaging (QODA, arXiv:2505.14371; methods/qoda.md, 2.5), one tensor a call.
//
//   Y = Y - g;   X = anchor + eta Y;   weight = X - gamma g
//
// With g the mean dual of step t (Vbar_{t+1/2}), anchor X_1, eta = eta_{t+1} and gamma = gamma_{t+1}, X is X_{t+1} and
// the weight is where step t+1 asks its oracle: X_{t+3/2}. X itself is stored nowhere. All tensors are f32 of one size.
// Element-wise: the same bits on any thread count.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct DualAveragingArgs {
  TensorView weight;    // overwritten
  TensorView anchor;    // where the run began
  TensorView dual;      // Y, updated; zero before the first step
  TensorView gradient;  // g
  float eta = 1.0f;
  float gamma = 1.0f;
};

void DualAveraging(const DualAveragingArgs& args, Stream& stream);

// |X_t - X_{t+1}|^2 of the step that DualAveraging is about to make: Y and g are those before it, X_t = anchor +
// eta_before Y. Summed in f64 over fixed blocks and the blocks' sums in order: the same bits on any thread count. A GPU
// adds in another order, fixed by the size.
struct DualDriftArgs {
  TensorView dual, gradient;
  float eta_before = 1.0f;
  float eta = 1.0f;
  TensorView drift;      // u8 (8), aligned to 8: one f64, overwritten
  TensorView workspace;  // u8, at least DualDriftWorkspaceBytes, aligned to 8
};

int64_t DualDriftWorkspaceBytes(int64_t elements);

void DualDrift(const DualDriftArgs& args, Stream& stream);

}  // namespace trainyard::kernels
