#include "worker/optim/game_optimizer.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/overloaded.h"
#include "kernels/optim/optimistic_adam.h"
#include "kernels/pointwise/elementwise.h"
#include "worker/optim/dual_averaging.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::Stream;
using kernels::TensorView;

class QodaOptimizer final : public GameOptimizer {
 public:
  QodaOptimizer(const spec::QodaDaOptions& options, const std::vector<GameParameter>& parameters, Arena& arena)
      : averaging_(options, parameters, arena), own_(options, parameters, arena) {}

  bool needs_contributions() const override { return true; }
  void Start(Stream& stream) override {
    averaging_.Start(stream);
    for (const NamedTensor& tensor : own_.state()) Fill({.y = tensor.tensor}, stream);
  }
  double OwnTerm(const std::vector<TensorView>& contributions, Stream& stream) const override {
    return own_.Term(contributions, stream);
  }
  void Apply(const Call& call, Stream& stream) override {
    averaging_.Step(call.term_sum, call.ranks, stream);
    own_.Accept(*call.contributions, stream);
  }
  const std::vector<NamedTensor>& state() const override { return averaging_.state(); }
  const std::vector<NamedTensor>& local_state() const override { return own_.state(); }
  std::string StateText() const override { return averaging_.StateText(); }
  absl::Status RestoreState(const std::string& text) override { return averaging_.RestoreState(text); }
  std::map<std::string, double> rates() const override {
    return {{"eta", averaging_.eta()}, {"gamma", averaging_.gamma()}};
  }

 private:
  DualAveraging averaging_;
  WorkerDual own_;
};

// Optimistic, extra- and plain Adam: one op, with different places where a step starts.
class GameAdamOptimizer final : public GameOptimizer {
 public:
  GameAdamOptimizer(const spec::GameAdamOptions& options, std::vector<GameParameter> parameters, Arena& arena)
      : options_(options), parameters_(std::move(parameters)) {
    const auto allocate = [&](const char* kind, bool is_state) {
      std::vector<TensorView> tensors;
      for (const GameParameter& parameter : parameters_) {
        tensors.push_back(arena.Allocate("moments", kernels::DType::kF32, {parameter.weight.size()}));
        if (is_state) state_.push_back({absl::StrCat("adam.", kind, "/", parameter.name), tensors.back()});
      }
      return tensors;
    };
    m_ = allocate("m", true);
    v_ = allocate("v", true);
    if (options_.form == spec::GameAdamForm::kOptimistic) previous_ = allocate("previous", true);
    // Lives within an update only.
    if (options_.form == spec::GameAdamForm::kExtra) base_ = allocate("base", false);
  }

  int calls_per_update() const override { return options_.form == spec::GameAdamForm::kExtra ? 2 : 1; }

  void Start(Stream& stream) override {
    for (const NamedTensor& tensor : state_) Fill({.y = tensor.tensor}, stream);
  }

  void Apply(const Call& call, Stream& stream) override {
    TY_CHECK_LT(call.call, calls_per_update());
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const GameParameter& parameter = parameters_[i];
      const bool leaps = !base_.empty() && call.call == 0;  // to the point of the second oracle call
      if (leaps) Convert({.x = parameter.weight, .y = base_[i]}, stream);
      OptimisticAdam({.weight = parameter.weight,
                      .base = !base_.empty() && !leaps ? base_[i] : TensorView(),
                      .gradient = parameter.gradient,
                      .m = m_[i],
                      .v = v_[i],
                      .previous = previous_.empty() ? TensorView() : previous_[i],
                      .lr = static_cast<float>(parameter.player == Player::kGenerator ? options_.lr_g : options_.lr_d),
                      .beta1 = static_cast<float>(options_.beta1),
                      .beta2 = static_cast<float>(options_.beta2),
                      .eps = static_cast<float>(options_.eps),
                      .step = (call.update - 1) * calls_per_update() + call.call + 1},
                     stream);
    }
  }

  // The moments keep what the first half of extra-Adam has told them.
  void Abandon(int call, Stream& stream) override {
    if (call == 0) return;
    for (size_t i = 0; i < parameters_.size(); ++i) Convert({.x = base_[i], .y = parameters_[i].weight}, stream);
  }

  const std::vector<NamedTensor>& state() const override { return state_; }
  const std::vector<NamedTensor>& local_state() const override { return local_state_; }
  std::map<std::string, double> rates() const override { return {{"lr_d", options_.lr_d}, {"lr_g", options_.lr_g}}; }

 private:
  const spec::GameAdamOptions options_;
  const std::vector<GameParameter> parameters_;
  std::vector<NamedTensor> state_, local_state_;
  std::vector<TensorView> m_, v_, previous_, base_;
};

}  // namespace

std::unique_ptr<GameOptimizer> MakeGameOptimizer(const spec::GameOptimizerOptions& options,
                                                 std::vector<GameParameter> parameters, Arena& arena) {
  using Made = std::unique_ptr<GameOptimizer>;
  return std::visit(Overloaded{
                        [&](const spec::QodaDaOptions& qoda) -> Made {
                          return std::make_unique<QodaOptimizer>(qoda, parameters, arena);
                        },
                        [&](const spec::GameAdamOptions& adam) -> Made {
                          return std::make_unique<GameAdamOptimizer>(adam, std::move(parameters), arena);
                        },
                    },
                    options);
}

}  // namespace trainyard::optim
