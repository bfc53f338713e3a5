#include "worker/optim/sgd_optimizer.h"

#include <utility>

#include "kernels/optim/sgd.h"
#include "worker/optim/moments.h"

namespace trainyard::optim {
namespace {

using kernels::TensorView;

class SgdOptimizer final : public Optimizer {
 public:
  SgdOptimizer(const spec::SgdOptions& options, std::vector<OptimizerParameter> parameters, kernels::Arena& arena)
      : options_(options), parameters_(std::move(parameters)) {
    if (options_.momentum > 0) {
      velocity_ = AllocateMoments("sgd.velocity", parameters_, kernels::DType::kF32, arena, &state_);
    } else {
      velocity_.resize(parameters_.size());
    }
  }

  void Update(const UpdateArgs& args, kernels::Stream& stream) override {
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

std::unique_ptr<Optimizer> MakeSgdOptimizer(const spec::SgdOptions& options, std::vector<OptimizerParameter> parameters,
                                            kernels::Arena& arena) {
  return std::make_unique<SgdOptimizer>(options, std::move(parameters), arena);
}

}  // namespace trainyard::optim
