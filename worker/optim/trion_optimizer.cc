#include "worker/optim/trion_optimizer.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/optim/error_feedback.h"
#include "kernels/optim/low_rank_step.h"
#include "kernels/optim/newton_schulz.h"
#include "worker/optim/adamw_optimizer.h"
#include "worker/optim/subspace.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::Stream;
using kernels::TensorView;
using UpdateScale = spec::TrionOptions::UpdateScale;

double ScaleOf(UpdateScale scale, int64_t rows, int64_t cols) {
  const double ratio = std::sqrt(static_cast<double>(rows) / static_cast<double>(cols));
  switch (scale) {
    case UpdateScale::kKj:
      return std::max(1.0, ratio);
    case UpdateScale::kNone:
      return 1.0;
    case UpdateScale::kKimi:
      return 0.2 * std::sqrt(static_cast<double>(std::max(rows, cols)));
    case UpdateScale::kDion:
      return ratio;
  }
  TY_CHECK(false && "no such update scale");
}

class TrionOptimizer final : public Optimizer {
 public:
  TrionOptimizer(const spec::TrionOptions& options, std::vector<OptimizerParameter> parameters, BasisCache bases,
                 Arena& arena)
      : options_(options), bases_(std::move(bases)) {
    std::vector<OptimizerParameter> others;
    int64_t newton_schulz_bytes = 0;
    for (OptimizerParameter& parameter : parameters) {
      if (!HasSubspace(parameter.weight, options_.subspace)) {
        others.push_back(std::move(parameter));
        continue;
      }
      AddMatrix(std::move(parameter), arena);
      const Subspace& subspace = matrices_.back().subspace;
      newton_schulz_bytes = std::max(newton_schulz_bytes,
                                     kernels::NewtonSchulzWorkspaceBytes(subspace.state_rows(), subspace.state_cols(),
                                                                         matrices_.back().parameter.weight.dtype()));
    }
    scratch_.Allocate(arena);
    newton_schulz_workspace_ = arena.Allocate("workspace", DType::kU8, {newton_schulz_bytes});
    spec::AdamWOptions adam;
    adam.beta1 = options_.adam_beta1;
    adam.beta2 = options_.adam_beta2;
    adam.epsilon = options_.adam_epsilon;
    adam.weight_decay = 0;
    full_rank_ = MakeAdamWOptimizer(adam, std::move(others), arena);
    state_.insert(state_.end(), full_rank_->state().begin(), full_rank_->state().end());
  }

  void Update(const UpdateArgs& args, Stream& stream) override {
    bases_.Prepare(stream);
    UpdateArgs adam = args;
    adam.learning_rate *= options_.adam_learning_rate / options_.learning_rate;  // which is above 0, args' may be 0
    full_rank_->Update(adam, stream);
    for (const Matrix& matrix : matrices_) UpdateMatrix(args, matrix, stream);
  }

  const std::vector<NamedTensor>& state() const override { return state_; }

 private:
  struct Matrix {
    OptimizerParameter parameter;
    Subspace subspace;
    TensorView momentum = {}, indices = {};
  };

  TensorView AddState(const char* what, const OptimizerParameter& parameter, const char* purpose, DType dtype,
                      std::initializer_list<int64_t> shape, Arena& arena) {
    const TensorView tensor = arena.Allocate(purpose, dtype, shape);
    state_.push_back({absl::StrCat("trion.", what, "/", parameter.name), tensor});
    return tensor;
  }

  void AddMatrix(OptimizerParameter parameter, Arena& arena) {
    const int64_t rows = parameter.weight.dim(0), cols = parameter.weight.dim(1);
    parameter.gradient = parameter.gradient.Reshape({rows, cols});
    const FixedBasis* basis = bases_.Get(std::min(rows, cols), arena);
    const int64_t rank = RankOf(parameter.name, options_.subspace);
    scratch_.Fit(rows, cols, rank, *basis);
    const Subspace subspace(rows, cols, rank, basis, &scratch_);
    Matrix matrix = {.parameter = parameter, .subspace = subspace};
    matrix.momentum = AddState("momentum", parameter, "moments", DType::kF32, {rows, cols}, arena);
    matrix.indices = AddState("indices", parameter, "indices", DType::kI32, {subspace.rank()}, arena);
    matrices_.push_back(std::move(matrix));
  }

  void UpdateMatrix(const UpdateArgs& args, const Matrix& matrix, Stream& stream) const {
    const Subspace& subspace = matrix.subspace;
    const OptimizerParameter& parameter = matrix.parameter;
    // The momentum is what error feedback would be in full precision, were the chosen part taken out whole.
    const kernels::FeedbackStore momentum = {.bits = 32, .codes = matrix.momentum};
    AddFeedback({.gradient = parameter.gradient, .store = momentum, .factor = args.gradient_factor}, stream);
    const TensorView coordinates =
        subspace.Select(parameter.gradient, OrderOf(options_.subspace.norm), matrix.indices, stream);
    subspace.UseVectors(matrix.indices, stream);
    KeepResidual({.gradient = parameter.gradient,
                  .selected = subspace.Matrix(coordinates),
                  .share = static_cast<float>(1 - options_.mu),
                  .store = momentum},
                 stream);
    NewtonSchulz({.x = coordinates,
                  .steps = options_.newton_schulz_steps,
                  .coefficients = options_.coefficients == spec::TrionOptions::Coefficients::kFixed
                                      ? kernels::NewtonSchulzCoefficients::kFixed
                                      : kernels::NewtonSchulzCoefficients::kScheduled,
                  .precision = parameter.weight.dtype(),
                  .workspace = newton_schulz_workspace_},
                 stream);
    LowRankStep({.direction = subspace.Matrix(coordinates),
                 .weight = parameter.weight,
                 .master = parameter.master,
                 .product = parameter.gradient,
                 .lr = static_cast<float>(args.learning_rate),
                 .scale = static_cast<float>(ScaleOf(options_.update_scale, subspace.rows(), subspace.cols())),
                 .weight_decay = parameter.decays ? static_cast<float>(options_.weight_decay) : 0.0f},
                stream);
  }

  const spec::TrionOptions options_;
  BasisCache bases_;
  SubspaceScratch scratch_;
  TensorView newton_schulz_workspace_;
  std::unique_ptr<Optimizer> full_rank_;
  std::vector<Matrix> matrices_;
  std::vector<NamedTensor> state_;
};

}  // namespace

std::unique_ptr<Optimizer> MakeTrionOptimizer(const spec::TrionOptions& options,
                                              std::vector<OptimizerParameter> parameters, Arena& arena) {
  return MakeTrionOptimizer(options, std::move(parameters), BasisCache(options.subspace), arena);
}

std::unique_ptr<Optimizer> MakeTrionOptimizer(const spec::TrionOptions& options,
                                              std::vector<OptimizerParameter> parameters, BasisCache bases,
                                              Arena& arena) {
  return std::make_unique<TrionOptimizer>(options, std::move(parameters), std::move(bases), arena);
}

}  // namespace trainyard::optim
