#include "worker/optim/adamw_optimizer.h"

#include <utility>

#include "kernels/optim/adamw.h"
#include "worker/optim/moments.h"
#include "worker/optim/update_pieces.h"

namespace trainyard::optim {
namespace {

using kernels::DType;
using kernels::Rounding;
using kernels::TensorView;

class AdamWOptimizer final : public Optimizer {
 public:
  AdamWOptimizer(const spec::AdamWOptions& options, std::vector<OptimizerParameter> parameters, kernels::Arena& arena,
                 const spec::OffloadOptions& offload)
      : options_(options), parameters_(std::move(parameters)) {
    const Place place = PlaceOf(offload.moments);
    UpdatedState m{
        .tensors = AllocateMoments("adamw.m", parameters_, DTypeOf(options.first_moment), arena, &state_, place),
        .place = place};
    UpdatedState m_scales{
        .tensors = std::vector<TensorView>(parameters_.size()), .stride = kernels::kMomentGroup, .place = place};
    if (options.first_moment == spec::MomentType::kE4M3) {
      for (size_t i = 0; i < parameters_.size(); ++i) {
        const int64_t groups = (m.tensors[i].size() + kernels::kMomentGroup - 1) / kernels::kMomentGroup;
        m_scales.tensors[i] = AllocateMoment("adamw.m_scales", parameters_[i], DType::kF32, groups, arena, &state_,
                                             kernels::kMomentGroup, place);
      }
    }
    UpdatedState v{
        .tensors = AllocateMoments("adamw.v", parameters_, DTypeOf(options.second_moment), arena, &state_, place),
        .place = place};
    pieces_ = std::make_unique<UpdatePieces>(parameters_,
                                             std::vector<UpdatedState>{std::move(m), std::move(m_scales), std::move(v)},
                                             PlaceOf(offload.master), arena);
  }

  void Update(const UpdateArgs& args, kernels::Stream& stream) override {
    const bool is_exact =
        options_.first_moment == spec::MomentType::kFp32 && options_.second_moment == spec::MomentType::kFp32;
    pieces_->ForEach(stream, [&](const UpdatePiece& piece) {
      AdamW({.param = piece.weight,
             .master = piece.master,
             .grad = piece.gradient,
             .m = piece.state[0],
             .v = piece.state[2],
             .m_scales = piece.state[1],
             .lr = static_cast<float>(args.learning_rate),
             .beta1 = static_cast<float>(options_.beta1),
             .beta2 = static_cast<float>(options_.beta2),
             .eps = static_cast<float>(options_.epsilon),
             .weight_decay = piece.parameter->decays ? static_cast<float>(options_.weight_decay) : 0.0f,
             .step = args.update,
             .gradient_factor = args.gradient_factor,
             .rounding = is_exact ? Rounding::kNearestEven : Rounding::kStochastic,
             .random = RandomOf(args, *piece.parameter),
             .first_element = piece.first_element},
            stream);
    });
  }

  const std::vector<NamedTensor>& state() const override { return state_; }

 private:
  const spec::AdamWOptions options_;
  const std::vector<OptimizerParameter> parameters_;
  std::vector<NamedTensor> state_;
  std::unique_ptr<UpdatePieces> pieces_;
};

}  // namespace

std::unique_ptr<Optimizer> MakeAdamWOptimizer(const spec::AdamWOptions& options,
                                              std::vector<OptimizerParameter> parameters, kernels::Arena& arena,
                                              const spec::OffloadOptions& offload) {
  return std::make_unique<AdamWOptimizer>(options, std::move(parameters), arena, offload);
}

}  // namespace trainyard::optim
