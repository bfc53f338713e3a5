#include "worker/optim/optimizer.h"

#include "base/overloaded.h"
#include "kernels/optim/adamw.h"
#include "kernels/optim/sgd.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::Stream;
using kernels::TensorView;

// One zeroed f32 tensor a parameter, remembered as state under "<kind>/<parameter>".
std::vector<TensorView> AllocateMoments(const std::string& kind, const std::vector<OptimizerParameter>& parameters,
                                        Arena& arena, std::vector<NamedTensor>* state) {
  std::vector<TensorView> moments;
  for (const OptimizerParameter& parameter : parameters) {
    moments.push_back(arena.Allocate("moments", kernels::DType::kF32, {parameter.weight.size()}));
    state->push_back({kind + "/" + parameter.name, moments.back()});
  }
  return moments;
}

class AdamWOptimizer final : public Optimizer {
 public:
  AdamWOptimizer(const spec::AdamWOptions& options, std::vector<OptimizerParameter> parameters, Arena& arena)
      : options_(options), parameters_(std::move(parameters)) {
    m_ = AllocateMoments("adamw.m", parameters_, arena, &state_);
    v_ = AllocateMoments("adamw.v", parameters_, arena, &state_);
  }

  void Update(const UpdateArgs& args, Stream& stream) override {
    for (size_t i = 0; i < parameters_.size(); ++i) {
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
             .weight_decay = parameter.decays ? static_cast<float>(options_.weight_decay) : 0.0f,
             .step = args.update,
             .gradient_factor = args.gradient_factor},
            stream);
    }
  }

  const std::vector<NamedTensor>& state() const override { return state_; }

 private:
  const spec::AdamWOptions options_;
  const std::vector<OptimizerParameter> parameters_;
  std::vector<NamedTensor> state_;
  std::vector<TensorView> m_, v_;
};

class SgdOptimizer final : public Optimizer {
 public:
  SgdOptimizer(const spec::SgdOptions& options, std::vector<OptimizerParameter> parameters, Arena& arena)
      : options_(options), parameters_(std::move(parameters)) {
    if (options_.momentum > 0) {
      velocity_ = AllocateMoments("sgd.velocity", parameters_, arena, &state_);
    } else {
      velocity_.resize(parameters_.size());
    }
  }

  void Update(const UpdateArgs& args, Stream& stream) override {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const OptimizerParameter& parameter = parameters_[i];
      Sgd({.param = parameter.weight,
           .master = parameter.master,
           .grad = parameter.gradient,
           .velocity = velocity_[i],
           .lr = static_cast<float>(args.learning_rate),
           .momentum = static_cast<float>(options_.momentum),
           .nesterov = options_.nesterov,
           .weight_decay = parameter.decays ? static_cast<float>(options_.weight_decay) : 0.0f,
           .gradient_factor = args.gradient_factor},
          stream);
    }
  }

  const std::vector<NamedTensor>& state() const override { return state_; }

 private:
  const spec::SgdOptions options_;
  const std::vector<OptimizerParameter> parameters_;
  std::vector<NamedTensor> state_;
  std::vector<TensorView> velocity_;
};

}  // namespace

std::unique_ptr<Optimizer> MakeOptimizer(const spec::OptimizerOptions& options,
                                         std::vector<OptimizerParameter> parameters, Arena& arena) {
  using Made = std::unique_ptr<Optimizer>;
  return std::visit(Overloaded{
                        [&](const spec::AdamWOptions& adamw) -> Made {
                          return std::make_unique<AdamWOptimizer>(adamw, std::move(parameters), arena);
                        },
                        [&](const spec::SgdOptions& sgd) -> Made {
                          return std::make_unique<SgdOptimizer>(sgd, std::move(parameters), arena);
                        },
                        // ParseOptimizer refuses these.
                        [](const spec::EcoOptions&) -> Made { return nullptr; },
                        [](const spec::DctAdamWOptions&) -> Made { return nullptr; },
                        [](const spec::TrionOptions&) -> Made { return nullptr; },
                        [](const spec::ElsaOptions&) -> Made { return nullptr; },
                    },
                    options);
}

double PeakLearningRate(const spec::OptimizerOptions& options) {
  return std::visit([](const auto& kind) { return kind.learning_rate; }, options);
}

}  // namespace trainyard::optim
