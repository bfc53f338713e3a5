#include "worker/optim/dct_adamw_optimizer.h"

#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/optim/error_feedback.h"
#include "kernels/optim/low_rank_adam.h"
#include "kernels/optim/low_rank_step.h"
#include "kernels/pointwise/elementwise.h"
#include "worker/optim/adamw_optimizer.h"
#include "worker/optim/subspace.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::FeedbackStore;
using kernels::Stream;
using kernels::TensorView;
using ErrorFeedback = spec::DctAdamWOptions::ErrorFeedback;

int BitsOf(ErrorFeedback feedback) {
  switch (feedback) {
    case ErrorFeedback::kNone:
      return 0;
    case ErrorFeedback::kInt4:
      return 4;
    case ErrorFeedback::kInt8:
      return 8;
    case ErrorFeedback::kFull:
      return 32;
  }
  TY_CHECK(false && "no such error feedback");
}

class DctAdamWOptimizer final : public Optimizer {
 public:
  DctAdamWOptimizer(const spec::DctAdamWOptions& options, std::vector<OptimizerParameter> parameters, BasisCache bases,
                    Arena& arena)
      : options_(options), bases_(std::move(bases)) {
    std::vector<OptimizerParameter> others;
    for (OptimizerParameter& parameter : parameters) {
      if (HasSubspace(parameter.weight, options_.subspace)) {
        AddMatrix(std::move(parameter), arena);
      } else {
        others.push_back(std::move(parameter));
      }
    }
    scratch_.Allocate(arena);
    spec::AdamWOptions adamw;
    adamw.beta1 = options_.beta1;
    adamw.beta2 = options_.beta2;
    adamw.epsilon = options_.epsilon;
    adamw.weight_decay = options_.weight_decay;
    full_rank_ = MakeAdamWOptimizer(adamw, std::move(others), arena);
    state_.insert(state_.end(), full_rank_->state().begin(), full_rank_->state().end());
  }

  void Update(const UpdateArgs& args, Stream& stream) override {
    bases_.Prepare(stream);
    full_rank_->Update(args, stream);
    for (const Matrix& matrix : matrices_) UpdateMatrix(args, matrix, stream);
  }

  // "subspace_churn": the share of the chosen vectors that the last refresh brought in, over all matrices. Each of them
  // steps by (1 - beta1) / sqrt(1 - beta2) times the rate at first (dct-lowrank.md, pitfall 1).
  void AddMetrics(std::map<std::string, double>* metrics) const override {
    if (!options_.rotate || matrices_.empty()) return;
    int64_t chosen = 0, kept = 0;
    for (const Matrix& matrix : matrices_) {
      const int32_t* now = matrix.indices.as<int32_t>();
      const int32_t* before = matrix.previous_indices.as<int32_t>();
      const int64_t r = matrix.subspace.rank();
      chosen += r;
      for (int64_t i = 0; i < r; ++i) kept += std::binary_search(before, before + r, now[i]) ? 1 : 0;
    }
    (*metrics)["subspace_churn"] = static_cast<double>(chosen - kept) / static_cast<double>(chosen);
  }

  const std::vector<NamedTensor>& state() const override { return state_; }

 private:
  struct Matrix {
    OptimizerParameter parameter;
    Subspace subspace;
    TensorView m = {}, v = {};
    TensorView indices = {}, previous_indices = {};  // the latter with rotation only
    FeedbackStore feedback = {};                     // without codes: none
  };

  TensorView AddState(const char* what, const OptimizerParameter& parameter, const char* purpose, DType dtype,
                      std::initializer_list<int64_t> shape, Arena& arena) {
    const TensorView tensor = arena.Allocate(purpose, dtype, shape);
    state_.push_back({absl::StrCat("dct_adamw.", what, "/", parameter.name), tensor});
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
    const int64_t state_rows = subspace.state_rows(), state_cols = subspace.state_cols();
    matrix.m = AddState("m", parameter, "moments", DType::kF32, {state_rows, state_cols}, arena);
    matrix.v = AddState("v", parameter, "moments", DType::kF32, {state_rows, state_cols}, arena);
    matrix.indices = AddState("indices", parameter, "indices", DType::kI32, {subspace.rank()}, arena);
    if (options_.rotate) {
      matrix.previous_indices =
          AddState("previous_indices", parameter, "indices", DType::kI32, {subspace.rank()}, arena);
    }
    matrix.feedback.bits = BitsOf(options_.error_feedback);
    if (matrix.feedback.bits == 32) {
      matrix.feedback.codes = AddState("feedback", parameter, "error_feedback", DType::kF32, {rows, cols}, arena);
    } else if (matrix.feedback.bits != 0) {
      const int64_t row_bytes = kernels::FeedbackRowBytes(matrix.feedback.bits, cols);
      matrix.feedback.codes = AddState("feedback", parameter, "error_feedback", DType::kU8, {rows, row_bytes}, arena);
      matrix.feedback.min = AddState("feedback_min", parameter, "error_feedback", DType::kF32, {rows}, arena);
      matrix.feedback.max = AddState("feedback_max", parameter, "error_feedback", DType::kF32, {rows}, arena);
    }
    matrices_.push_back(std::move(matrix));
  }

  void UpdateMatrix(const UpdateArgs& args, const Matrix& matrix, Stream& stream) const {
    const Subspace& subspace = matrix.subspace;
    const TensorView& gradient = matrix.parameter.gradient;
    const bool has_feedback = static_cast<bool>(matrix.feedback.codes);
    const bool refreshes = args.update == 1 || args.update % options_.update_gap == 0;
    const bool rotates = options_.rotate && refreshes && args.update > 1;
    // The gradient is clipped before the feedback joins it. Without feedback, the few coordinates are scaled instead.
    TensorView factor = args.gradient_factor;
    if (has_feedback) {
      AddFeedback({.gradient = gradient, .store = matrix.feedback, .factor = factor}, stream);
      factor = {};
    }
    TensorView coordinates;
    if (refreshes) {
      if (options_.rotate) Convert({.x = matrix.indices, .y = matrix.previous_indices}, stream);
      coordinates = subspace.Select(gradient, OrderOf(options_.subspace.norm), matrix.indices, stream);
    }
    subspace.UseVectors(matrix.indices, stream);
    if (!refreshes) coordinates = subspace.CoordinatesAlong(gradient, stream);
    if (has_feedback) {
      KeepResidual({.gradient = gradient, .selected = subspace.Matrix(coordinates), .store = matrix.feedback}, stream);
    }
    if (rotates) {
      subspace.Rotate(matrix.previous_indices, matrix.indices, matrix.m, stream);
      subspace.Rotate(matrix.previous_indices, matrix.indices, matrix.v, stream);
    }
    LowRankAdam({.a = coordinates,
                 .m = matrix.m,
                 .v = matrix.v,
                 .beta1 = static_cast<float>(options_.beta1),
                 .beta2 = static_cast<float>(options_.beta2),
                 .eps = static_cast<float>(options_.epsilon),
                 .step = args.update,
                 .gradient_factor = factor},
                stream);
    LowRankStep({.direction = subspace.Matrix(coordinates),
                 .weight = matrix.parameter.weight,
                 .master = matrix.parameter.master,
                 .product = gradient,
                 .lr = static_cast<float>(args.learning_rate),
                 .weight_decay = matrix.parameter.decays ? static_cast<float>(options_.weight_decay) : 0.0f},
                stream);
  }

  const spec::DctAdamWOptions options_;
  BasisCache bases_;
  SubspaceScratch scratch_;
  std::unique_ptr<Optimizer> full_rank_;
  std::vector<Matrix> matrices_;
  std::vector<NamedTensor> state_;
};

}  // namespace

std::unique_ptr<Optimizer> MakeDctAdamWOptimizer(const spec::DctAdamWOptions& options,
                                                 std::vector<OptimizerParameter> parameters, Arena& arena) {
  return MakeDctAdamWOptimizer(options, std::move(parameters), BasisCache(options.subspace), arena);
}

std::unique_ptr<Optimizer> MakeDctAdamWOptimizer(const spec::DctAdamWOptions& options,
                                                 std::vector<OptimizerParameter> parameters, BasisCache bases,
                                                 Arena& arena) {
  return std::make_unique<DctAdamWOptimizer>(options, std::move(parameters), std::move(bases), arena);
}

}  // namespace trainyard::optim
