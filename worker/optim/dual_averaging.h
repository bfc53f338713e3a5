// Optimistic dual averaging over the tensors of a model (QODA; methods/qoda.md, 2.5), cut in two: what all workers hold
// alike, and what each holds of its own. So the workers of a game can be ranks of a job, or objects in one thread.
//
//   loop: V_k = oracle of worker k at the weights; exchange: V = mean_k Vhat_k
//         term = sum over k, in rank order, of worker[k].Term(Vhat_k)
//         averaging.Step(V, term, K);  worker[k].Accept(Vhat_k)
//
// The weights are X_{t+1/2} all the time. They stand in a checkpoint for the last mean dual, which is what they were
// made of: so X_1, Y and one's own Vhat are all there is beside them. All tensors are f32.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "proto/spec/qoda_gan_options.h"
#include "worker/optim/game_parameter.h"
#include "worker/optim/step_sizes.h"

namespace trainyard::optim {

class DualAveraging {
 public:
  // Anchors and duals from the arena, under "moments".
  DualAveraging(const spec::QodaDaOptions& options, std::vector<GameParameter> parameters, kernels::Arena& arena);

  // The weights as they are become X_1.
  void Start(kernels::Stream& stream);

  // One step with the mean dual in the parameters' gradients. `term_sum` is the sum of WorkerDual::Term over the
  // `workers`. Under the separated rule the step's own drift stays on the device until the next step, which waits for
  // it, or StateText reads it: by then the stream must have been synchronised.
  void Step(double term_sum, int workers, kernels::Stream& stream);

  double eta() const { return step_sizes_.eta(); }
  double gamma() const { return step_sizes_.gamma(); }

  const std::vector<NamedTensor>& state() const { return state_; }
  std::string StateText() const;
  absl::Status RestoreState(const std::string& text);

 private:
  double PendingDrift() const;

  const spec::QodaDaOptions options_;
  const std::vector<GameParameter> parameters_;
  StepSizes step_sizes_;    // without the last step's drift,
  bool has_drift_ = false;  // if there is one
  std::vector<kernels::TensorView> anchors_, duals_;
  kernels::TensorView drifts_;  // separated rule: one f64 a parameter
  kernels::TensorView drift_workspace_;
  std::vector<NamedTensor> state_;
};

// One worker's own dual of the step before. Under the separated rule there is none to keep.
class WorkerDual {
 public:
  WorkerDual(const spec::QodaDaOptions& options, const std::vector<GameParameter>& parameters, kernels::Arena& arena);

  // |Vhat_t - Vhat_{t-1}|^2 under the base rule, |Vhat_t|^2 under the separated one; f64, in a fixed order. `dual` is
  // what the mean really contains of this worker, unscaled, one view a parameter.
  double Term(const std::vector<kernels::TensorView>& dual, kernels::Stream& stream) const;
  // `dual` is that of the step before from now on.
  void Accept(const std::vector<kernels::TensorView>& dual, kernels::Stream& stream);

  const std::vector<NamedTensor>& state() const { return state_; }

 private:
  std::vector<kernels::TensorView> previous_;  // empty under the separated rule
  std::vector<NamedTensor> state_;
};

}  // namespace trainyard::optim
