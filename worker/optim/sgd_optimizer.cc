#include "worker/optim/sgd_optimizer.h"

#include <utility>

#include "kernels/optim/sgd.h"
#include "worker/optim/moments.h"
#include "worker/optim/update_pieces.h"

namespace trainyard::optim {
namespace {

using kernels::TensorView;

class SgdOptimizer final : public Optimizer {
 public:
  SgdOptimizer(const spec::SgdOptions& options, std::vector<OptimizerParameter> parameters, kernels::Arena& arena,
               const spec::OffloadOptions& offload)
      : options_(options), parameters_(std::move(parameters)) {
    UpdatedState velocity{.tensors = std::vector<TensorView>(parameters_.size()), .place = PlaceOf(offload.moments)};
    if (options_.momentum > 0) {
      velocity.tensors =
          AllocateMoments("sgd.velocity", parameters_, kernels::DType::kF32, arena, &state_, velocity.place);
    }
    pieces_ = std::make_unique<UpdatePieces>(parameters_, std::vector<UpdatedState>{std::move(velocity)},
                                             PlaceOf(offload.master), arena);
  }

  void Update(const UpdateArgs& args, kernels::Stream& stream) override {
    pieces_->ForEach(stream, [&](const UpdatePiece& piece) {
      Sgd({.param = piece.weight,
           .master = piece.master,
           .grad = piece.gradient,
           .velocity = piece.state[0],
           .lr = static_cast<float>(args.learning_rate),
           .momentum = static_cast<float>(options_.momentum),
           .nesterov = options_.nesterov,
           .weight_decay = piece.parameter->decays ? static_cast<float>(options_.weight_decay) : 0.0f,
           .gradient_factor = args.gradient_factor,
           .first_element = piece.first_element},
          stream);
    });
  }

  const std::vector<NamedTensor>& state() const override { return state_; }

 private:
  const spec::SgdOptions options_;
  const std::vector<OptimizerParameter> parameters_;
  std::vector<NamedTensor> state_;
  std::unique_ptr<UpdatePieces> pieces_;
};

}  // namespace

std::unique_ptr<Optimizer> MakeSgdOptimizer(const spec::SgdOptions& options, std::vector<OptimizerParameter> parameters,
                                            kernels::Arena& arena, const spec::OffloadOptions& offload) {
  return std::make_unique<SgdOptimizer>(options, std::move(parameters), arena, offload);
}

}  // namespace trainyard::optim
