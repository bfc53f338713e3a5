#include "worker/optim/adamw_optimizer.h"

#include <utility>

#include "kernels/optim/adamw.h"
#include "worker/optim/moments.h"

namespace trainyard::optim {
namespace {

using kernels::DType;
using kernels::Rounding;
using kernels::TensorView;

class AdamWOptimizer final : public Optimizer {
 public:
  AdamWOptimizer(const spec::AdamWOptions& options, std::vector<OptimizerParameter> parameters, kernels::Arena& arena)
      : options_(options), parameters_(std::move(parameters)) {
    m_ = AllocateMoments("adamw.m", parameters_, DTypeOf(options.first_moment), arena, &state_);
    m_scales_.resize(parameters_.size());
    if (options.first_moment == spec::MomentType::kE4M3) {
      for (size_t i = 0; i < parameters_.size(); ++i) {
        const int64_t groups = (m_[i].size() + kernels::kMomentGroup - 1) / kernels::kMomentGroup;
        m_scales_[i] = AllocateMoment("adamw.m_scales", parameters_[i], DType::kF32, groups, arena, &state_,
                                      kernels::kMomentGroup);
      }
    }
    v_ = AllocateMoments("adamw.v", parameters_, DTypeOf(options.second_moment), arena, &state_);
  }

  void Update(const UpdateArgs& args, kernels::Stream& stream) override {
    const bool is_exact =
        options_.first_moment == spec::MomentType::kFp32 && options_.second_moment == spec::MomentType::kFp32;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const OptimizerParameter& parameter = parameters_[i];
      AdamW({.param = parameter.weight,
             .master = parameter.master,
             .grad = parameter.gradient,
             .m = m_[i],
             .v = v_[i],
             .m_scales = m_scales_[i],
             .lr = static_cast<float>(args.learning_rate),
             .beta1 = static_cast<float>(options_.beta1),
             .beta2 = static_cast<float>(options_.beta2),
             .eps = static_cast<float>(options_.epsilon),
             .weight_decay = parameter.decays ? static_cast<float>(options_.weight_decay) : 0.0f,
             .step = args.update,
             .gradient_factor = args.gradient_factor,
             .rounding = is_exact ? Rounding::kNearestEven : Rounding::kStochastic,
             .random = RandomOf(args, parameter),
             .first_element = parameter.first_element},
            stream);
    }
  }

  const std::vector<NamedTensor>& state() const override { return state_; }

 private:
  const spec::AdamWOptions options_;
  const std::vector<OptimizerParameter> parameters_;
  std::vector<NamedTensor> state_;
  std::vector<TensorView> m_, m_scales_, v_;
};

}  // namespace

std::unique_ptr<Optimizer> MakeAdamWOptimizer(const spec::AdamWOptions& options,
                                              std::vector<OptimizerParameter> parameters, kernels::Arena& arena) {
  return std::make_unique<AdamWOptimizer>(options, std::move(parameters), arena);
}

}  // namespace trainyard::optim
