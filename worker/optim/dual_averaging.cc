#include "worker/optim/dual_averaging.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/codec/squared_distance.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/dual_averaging.h"
#include "kernels/pointwise/elementwise.h"

namespace trainyard::optim {

using kernels::Arena;
using kernels::Stream;
using kernels::TensorView;

DualAveraging::DualAveraging(const spec::QodaDaOptions& options, std::vector<GameParameter> parameters, Arena& arena)
    : options_(options), parameters_(std::move(parameters)), step_sizes_(options) {
  const auto allocate = [&](const char* kind, std::vector<TensorView>* tensors) {
    for (const GameParameter& parameter : parameters_) {
      tensors->push_back(arena.Allocate("moments", kernels::DType::kF32, {parameter.weight.size()}));
      state_.push_back({absl::StrCat(kind, "/", parameter.name), tensors->back()});
    }
  };
  allocate("qoda_da.anchor", &anchors_);
  allocate("qoda_da.dual", &duals_);
  if (options_.lr_rule != spec::StepRule::kSeparated) return;
  int64_t workspace_bytes = 0;
  for (const GameParameter& parameter : parameters_) {
    workspace_bytes = std::max(workspace_bytes, kernels::DualDriftWorkspaceBytes(parameter.weight.size()));
  }
  const auto drift_bytes = static_cast<int64_t>(parameters_.size() * sizeof(double));
  drifts_ = arena.AllocateShared("workspace", kernels::DType::kU8, {drift_bytes});
  drift_workspace_ = arena.Allocate("workspace", kernels::DType::kU8, {workspace_bytes});
}

double DualAveraging::PendingDrift() const {
  if (!has_drift_) return 0;
  const double* const drifts = static_cast<const double*>(drifts_.data());
  return std::accumulate(drifts, drifts + parameters_.size(), 0.0);
}

std::string DualAveraging::StateText() const {
  StepSizes sizes = step_sizes_;
  sizes.AddDrift(PendingDrift());
  return sizes.Text();
}

absl::Status DualAveraging::RestoreState(const std::string& text) {
  has_drift_ = false;
  return step_sizes_.Restore(text);
}

void DualAveraging::Start(Stream& stream) {
  step_sizes_.Reset();
  has_drift_ = false;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Convert({.x = parameters_[i].weight, .y = anchors_[i]}, stream);
    Fill({.y = duals_[i]}, stream);
  }
}

void DualAveraging::Step(double term_sum, int workers, Stream& stream) {
  if (has_drift_) kernels::WaitForDevice(stream);  // of the last step: next to nothing is under way
  step_sizes_.AddDrift(PendingDrift());
  const auto eta_before = static_cast<float>(step_sizes_.eta());
  step_sizes_.Advance(term_sum / (static_cast<double>(workers) * workers));
  const auto eta = static_cast<float>(step_sizes_.eta());
  const auto gamma = static_cast<float>(step_sizes_.gamma());
  has_drift_ = options_.lr_rule == spec::StepRule::kSeparated;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const TensorView& gradient = parameters_[i].gradient;
    if (has_drift_) {
      const auto at = static_cast<int64_t>(i * sizeof(double));
      DualDrift({.dual = duals_[i],
                 .gradient = gradient,
                 .eta_before = eta_before,
                 .eta = eta,
                 .drift = drifts_.Slice(at, sizeof(double)),
                 .workspace = drift_workspace_},
                stream);
    }
    kernels::DualAveraging({.weight = parameters_[i].weight,
                            .anchor = anchors_[i],
                            .dual = duals_[i],
                            .gradient = gradient,
                            .eta = eta,
                            .gamma = gamma},
                           stream);
  }
}

WorkerDual::WorkerDual(const spec::QodaDaOptions& options, const std::vector<GameParameter>& parameters, Arena& arena) {
  if (options.lr_rule == spec::StepRule::kSeparated) return;
  for (const GameParameter& parameter : parameters) {
    previous_.push_back(arena.Allocate("moments", kernels::DType::kF32, {parameter.weight.size()}));
    state_.push_back({absl::StrCat("qoda_da.own_dual/", parameter.name), previous_.back()});
  }
}

double WorkerDual::Term(const std::vector<TensorView>& dual, Stream& stream) const {
  if (!previous_.empty()) TY_CHECK_EQ(dual.size(), previous_.size());
  double term = 0;
  for (size_t i = 0; i < dual.size(); ++i) {
    term +=
        previous_.empty() ? SquaredNorm(dual[i], stream) : SquaredDistance({.a = dual[i], .b = previous_[i]}, stream);
  }
  return term;
}

void WorkerDual::Accept(const std::vector<TensorView>& dual, Stream& stream) {
  for (size_t i = 0; i < previous_.size(); ++i) Convert({.x = dual[i], .y = previous_[i]}, stream);
}

}  // namespace trainyard::optim
