#include "worker/optim/eco_optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/optim/adamw.h"
#include "kernels/optim/eco.h"
#include "kernels/pointwise/elementwise.h"
#include "worker/optim/moments.h"

namespace trainyard::optim {
namespace {

using kernels::DType;
using kernels::EcoForm;
using kernels::Rounding;
using kernels::Stream;
using kernels::TensorView;

EcoForm FormOf(spec::EcoOptions::Form form) {
  switch (form) {
    case spec::EcoOptions::Form::kAdamW:
      return EcoForm::kAdamW;
    case spec::EcoOptions::Form::kSgdm:
      return EcoForm::kSgdm;
    case spec::EcoOptions::Form::kSgdmExact:
      return EcoForm::kSgdmExact;
  }
  return EcoForm::kAdamW;
}

class EcoOptimizer final : public Optimizer {
 public:
  EcoOptimizer(const spec::EcoOptions& options, std::vector<OptimizerParameter> parameters, kernels::Arena& arena)
      : options_(options), form_(FormOf(options.form)), parameters_(std::move(parameters)) {
    m_ = AllocateMoments("eco.m", parameters_, DTypeOf(options.first_moment), arena, &state_);
    v_.resize(parameters_.size());
    if (form_ == EcoForm::kAdamW) {
      v_ = AllocateMoments("eco.v", parameters_, DTypeOf(options.second_moment), arena, &state_);
    }
    errors_.resize(parameters_.size());
    int64_t pieces = 0, workspace_bytes = 0;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const OptimizerParameter& parameter = parameters_[i];
      if (!parameter.coded) continue;
      coded_elements_ += parameter.coded.size();
      pieces += EcoPieces(parameter.coded);
      workspace_bytes = std::max(workspace_bytes, EcoWorkspaceBytes(parameter.coded));
      if (form_ == EcoForm::kSgdmExact) {
        errors_[i] = AllocateMoment("eco.error", parameter, DType::kF32, parameter.coded.size(), arena, &state_);
      }
    }
    statistics_ = arena.Allocate("workspace", DType::kF32, {pieces, kernels::kEcoStatistics});
    if (workspace_bytes > 0) workspace_ = arena.Allocate("workspace", DType::kU8, {workspace_bytes});
  }

  void Update(const UpdateArgs& args, Stream& stream) override {
    int64_t piece = 0;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const OptimizerParameter& parameter = parameters_[i];
      if (parameter.coded) {
        const int64_t pieces = EcoPieces(parameter.coded);
        kernels::EcoArgs eco = Common(args, i);
        eco.weights = parameter.coded;
        eco.weight_value = parameter.weight.dtype();
        eco.inject = options_.error_injection;
        eco.statistics = statistics_.Slice(piece, pieces);
        eco.workspace = workspace_;
        Eco(eco, stream);
        piece += pieces;
      } else if (form_ == EcoForm::kAdamW) {
        UpdatePlain(args, i, stream);
      } else {
        kernels::EcoArgs sgdm = Common(args, i);
        sgdm.form = EcoForm::kSgdm;  // without codes there is no error
        sgdm.weights = {parameter.master ? parameter.master : parameter.weight, {}};
        sgdm.inject = false;
        Eco(sgdm, stream);
        if (parameter.master) Convert({.x = parameter.master, .y = parameter.weight}, stream);
      }
    }
  }

  void AddMetrics(std::map<std::string, double>* metrics) const override {
    double sums[kernels::kEcoStatistics] = {};
    const float* const all = statistics_.as<float>();
    for (int64_t i = 0; i < statistics_.size(); ++i) sums[i % kernels::kEcoStatistics] += all[i];
    const double elements = std::max(1.0, static_cast<double>(coded_elements_));
    const double momentum = sums[kernels::kEcoMomentumSquares];
    (*metrics)["eco_changed_share"] = sums[kernels::kEcoChanged] / elements;
    (*metrics)["eco_clipped_share"] = sums[kernels::kEcoClipped] / elements;
    (*metrics)["eco_injection_ratio"] = momentum > 0 ? std::sqrt(sums[kernels::kEcoInjectionSquares] / momentum) : 0.0;
  }

  const std::vector<NamedTensor>& state() const override { return state_; }

 private:
  float Decay(const OptimizerParameter& parameter) const {
    return parameter.decays ? static_cast<float>(options_.weight_decay) : 0.0f;
  }

  // All but the weights and what concerns their rounding.
  kernels::EcoArgs Common(const UpdateArgs& args, size_t i) const {
    const OptimizerParameter& parameter = parameters_[i];
    return {.form = form_,
            .weights = {},
            .grad = parameter.gradient,
            .m = m_[i],
            .v = v_[i],
            .error = errors_[i],
            .lr = static_cast<float>(args.learning_rate),
            .beta1 = static_cast<float>(options_.beta1),
            .beta2 = static_cast<float>(options_.beta2),
            .eps = static_cast<float>(options_.epsilon),
            .weight_decay = Decay(parameter),
            .step = args.update,
            .gradient_factor = args.gradient_factor,
            .decay_correction = options_.decay_correction,
            .min_learning_rate = static_cast<float>(options_.min_learning_rate),
            .rounding = options_.rounding == spec::EcoOptions::Rounding::kStochastic ? Rounding::kStochastic
                                                                                     : Rounding::kNearestEven,
            .random = RandomOf(args, parameter)};
  }

  void UpdatePlain(const UpdateArgs& args, size_t i, Stream& stream) const {
    const OptimizerParameter& parameter = parameters_[i];
    AdamW({.param = parameter.weight,
           .master = parameter.master,
           .grad = parameter.gradient,
           .m = m_[i],
           .v = v_[i],
           .lr = static_cast<float>(args.learning_rate),
           .beta1 = static_cast<float>(options_.beta1),
           .beta2 = static_cast<float>(options_.beta2),
           .eps = static_cast<float>(options_.epsilon),
           .weight_decay = Decay(parameter),
           .step = args.update,
           .gradient_factor = args.gradient_factor,
           .rounding = Rounding::kStochastic,
           .random = RandomOf(args, parameter)},
          stream);
  }

  const spec::EcoOptions options_;
  const EcoForm form_;
  const std::vector<OptimizerParameter> parameters_;
  std::vector<NamedTensor> state_;
  std::vector<TensorView> m_, v_, errors_;
  TensorView statistics_;  // (pieces of all coded parameters, kEcoStatistics)
  TensorView workspace_;   // of one matrix at a time
  int64_t coded_elements_ = 0;
};

}  // namespace

std::unique_ptr<Optimizer> MakeEcoOptimizer(const spec::EcoOptions& options, std::vector<OptimizerParameter> parameters,
                                            kernels::Arena& arena) {
  return std::make_unique<EcoOptimizer>(options, std::move(parameters), arena);
}

}  // namespace trainyard::optim
