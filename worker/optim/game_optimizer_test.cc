// Exact paths of small games (methods/qoda.md, section 5, items 1, 2, 3 and 8), and the state that a checkpoint holds.
#include "worker/optim/game_optimizer.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/optim/dual_averaging_formula.h"
#include "kernels/optim/optimistic_adam_formula.h"
#include "worker/optim/testing/simulated_game.h"

namespace trainyard::optim {
namespace {

using ::testing::HasSubstr;

// One worker and no quantizer, in f64: the product's step sizes and its element formula.
struct ExactRun {
  StepSizes sizes{spec::QodaDaOptions{}};
  std::vector<double> x, anchor, dual, previous, sum;
  int64_t steps = 0;

  explicit ExactRun(const std::vector<double>& start)
      : x(start), anchor(start), dual(start.size()), previous(start.size()), sum(start.size()) {}

  void Step(const std::vector<double>& v) {
    double term = 0;
    for (size_t i = 0; i < v.size(); ++i) {
      term += (v[i] - previous[i]) * (v[i] - previous[i]);
      sum[i] += x[i];
    }
    ++steps;
    sizes.Advance(term);
    for (size_t i = 0; i < v.size(); ++i) {
      kernels::DualAveragingElement(anchor[i], v[i], sizes.eta(), sizes.gamma(), dual[i], x[i]);
    }
    previous = v;
  }
  double AverageNorm() const {
    double squares = 0;
    for (const double value : sum) squares += value * value;
    return std::sqrt(squares) / static_cast<double>(steps);
  }
};

std::vector<double> Bilinear(const std::vector<double>& x) {
  return {x[1], -x[0]};
}

TEST(QodaDa, PathOfTheBilinearGame) {
  ExactRun run({1, 0});
  const double points[][2] = {{1, 0}, {1, 1.4142135624}, {-0.4142135624, 1.5}};
  const double etas[] = {0.7071067812, 0.5, 0.4079981516};
  for (int t = 0; t < 3; ++t) {
    EXPECT_NEAR(run.x[0], points[t][0], 1e-9);
    EXPECT_NEAR(run.x[1], points[t][1], 1e-9);
    run.Step(Bilinear(run.x));
    EXPECT_NEAR(run.sizes.eta(), etas[t], 1e-9);
    EXPECT_EQ(run.sizes.eta(), run.sizes.gamma());
  }
  const struct {
    int64_t steps;
    double gap;
  } kGaps[] = {{10, 0.2884144833}, {64, 0.0432374520}, {256, 0.0108165043}};
  for (const auto& [steps, gap] : kGaps) {
    while (run.steps < steps) run.Step(Bilinear(run.x));
    EXPECT_NEAR(run.AverageNorm(), gap, 1e-9);
  }
  while (run.steps < 100000) run.Step(Bilinear(run.x));
  EXPECT_NEAR(run.sizes.eta(), 0.3611379333, 1e-9);
  EXPECT_NEAR(run.AverageNorm() * static_cast<double>(run.steps), 2.769025, 1e-5);
}

// The same through the f32 tensors of the optimizer.
TEST(QodaDa, FloatPathFollowsTheExactOne) {
  SimulatedGame game(spec::QodaDaOptions{}, {1, 0}, 1);
  ExactRun exact({1, 0});
  for (int t = 0; t < 256; ++t) {
    EXPECT_NEAR(game.x()[0], exact.x[0], 2e-6) << t;
    EXPECT_NEAR(game.x()[1], exact.x[1], 2e-6) << t;
    exact.Step(Bilinear(exact.x));
    game.Update([](int, const std::vector<float>& x, std::vector<float>* v) { *v = {x[1], -x[0]}; });
    EXPECT_NEAR(game.averaging().eta(), exact.sizes.eta(), 1e-6);
  }
}

// With one worker QODA is optimistic dual averaging (Hsieh et al., COLT 2021): X = -(G_{t-1} + g_{t-1}) / lambda_t.
TEST(QodaDa, EqualsOptimisticDualAveragingOfOneWorker) {
  constexpr size_t kDim = 6;
  ExactRun run(std::vector<double>(kDim, 0.0));
  std::vector<double> total(kDim), last(kDim);
  double squares = 0;
  for (int t = 1; t <= 200; ++t) {
    const double lambda = std::sqrt(1 + squares);
    std::vector<double> g(kDim);
    for (size_t i = 0; i < kDim; ++i) {
      EXPECT_NEAR(run.x[i], -(total[i] + last[i]) / lambda, 1e-12);
      // Some operator: skew, with an offset so that the start is no solution.
      g[i] = (i % 2 == 0 ? run.x[i + 1] : -run.x[i - 1]) + 0.1 * static_cast<double>(i) + std::sin(t);
    }
    for (size_t i = 0; i < kDim; ++i) {
      squares += (g[i] - last[i]) * (g[i] - last[i]);
      total[i] += g[i];
    }
    run.Step(g);
    last = g;
  }
}

// gamma_t = (1 + S_{t-2})^(q - 1/2), eta_t with the same S and the way of X up to X_{t-1}: each index by hand.
TEST(QodaDa, SeparatedRuleLooksTwoStepsBack) {
  spec::QodaDaOptions options;
  options.lr_rule = spec::StepRule::kSeparated;
  StepSizes sizes(options);
  sizes.Advance(3);  // |V_1|^2; X_2 is formed with S_0 = 0
  EXPECT_EQ(sizes.eta(), 1);
  EXPECT_EQ(sizes.gamma(), 1);
  sizes.AddDrift(0.5);  // |X_1 - X_2|^2
  sizes.Advance(7);     // X_3: S_1 = 3
  EXPECT_DOUBLE_EQ(sizes.eta(), 1 / std::sqrt(1 + 3 + 0.5));
  EXPECT_DOUBLE_EQ(sizes.gamma(), std::pow(4, -0.25));
  sizes.AddDrift(0.25);
  sizes.Advance(1);  // X_4: S_2 = 10
  EXPECT_DOUBLE_EQ(sizes.eta(), 1 / std::sqrt(1 + 10 + 0.75));
  EXPECT_DOUBLE_EQ(sizes.gamma(), std::pow(11, -0.25));
}

TEST(QodaDa, ScaleMultipliesBothRates) {
  spec::QodaDaOptions options;
  options.lr_scale = 0.25;
  StepSizes sizes(options);
  sizes.Advance(3);
  EXPECT_EQ(sizes.eta(), 0.125);
  EXPECT_EQ(sizes.gamma(), 0.125);
}

TEST(QodaDa, StepSizesAreRestoredToTheBit) {
  StepSizes sizes{spec::QodaDaOptions{}}, other{spec::QodaDaOptions{}};
  sizes.Advance(1.0 / 3);
  sizes.AddDrift(1e-300);
  ASSERT_OK(other.Restore(sizes.Text()));
  EXPECT_EQ(other.Text(), sizes.Text());
  EXPECT_EQ(other.eta(), sizes.eta());
  sizes.Advance(0.1);
  other.Advance(0.1);
  EXPECT_EQ(other.eta(), sizes.eta());
  for (const char* text : {"", "1 2 3", "1 2 3 x", "1 2 3 -4", "1 2 3 nan"}) {
    EXPECT_THAT(other.Restore(text), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("step sizes")));
  }
}

// Item 2: norms after 100 steps of 0.1 from (1, 0). Plain simultaneous steps spiral out; the optimistic step of the
// Adam op, fed with gradients instead of Adam's directions, spirals in.
TEST(OptimisticGradient, SpiralsInWherePlainStepsSpiralOut) {
  double plain[2] = {1, 0}, x[2] = {1, 0}, previous[2] = {};
  std::vector<double> norms;
  for (int t = 0; t < 100; ++t) {
    const double g[2] = {plain[1], -plain[0]}, o[2] = {x[1], -x[0]};
    for (int i = 0; i < 2; ++i) {
      plain[i] -= 0.1 * g[i];
      x[i] = kernels::OptimisticStep(x[i], 0.1, o[i], previous[i]);
    }
    norms.push_back(std::hypot(x[0], x[1]));
  }
  EXPECT_NEAR(std::hypot(plain[0], plain[1]), 1.64463182, 5e-9);
  EXPECT_NEAR(norms.back(), 0.61119643, 5e-9);
  EXPECT_NEAR(norms[99] / norms[98], 0.9949361530, 1e-9);
}

// Extra-Adam with betas 0 and a huge eps takes steps of lr / eps times the gradient: extra-gradient, whose norm after
// 50 and 100 steps is known. Two oracle calls an update.
TEST(ExtraAdam, IsExtraGradientWhenItsMomentsForget) {
  spec::GameAdamOptions options;
  options.form = spec::GameAdamForm::kExtra;
  options.beta1 = options.beta2 = 0;
  options.eps = 1e4;
  options.lr_d = options.lr_g = 0.1 * 1e4;
  SimulatedGame game(options, {1, 0}, 1, 1);
  for (int t = 0; t < 100; ++t) {
    game.Update([](int, const std::vector<float>& x, std::vector<float>* v) { *v = {x[1], -x[0]}; });
  }
  EXPECT_EQ(game.oracle_calls(), 200);
  EXPECT_NEAR(std::hypot(game.x()[0], game.x()[1]), 0.60806923, 2e-4);
}

// A call that was not finite leaves the weights before the update.
TEST(ExtraAdam, AnAbandonedSecondCallGoesBack) {
  spec::GameAdamOptions options;
  options.form = spec::GameAdamForm::kExtra;
  std::vector<float> x = {1, 2}, gradient = {1, 1};
  ASSERT_OK_AND_ASSIGN(kernels::Arena arena, kernels::Arena::Reserve(4096));
  kernels::Stream stream(1);
  const auto optimizer = MakeGameOptimizer(options, {{"w", ViewOf(x), ViewOf(gradient)}}, arena);
  optimizer->Start(stream);
  optimizer->Apply({.call = 0, .update = 1}, stream);
  EXPECT_NE(x[0], 1);
  optimizer->Abandon(1, stream);
  EXPECT_EQ(x[0], 1);
  EXPECT_EQ(x[1], 2);
}

struct Player2 {
  std::vector<float> x = {1, 0.5f, -2}, gradient = std::vector<float>(3);
  kernels::Arena arena = *kernels::Arena::Reserve(1 << 14);
  kernels::Stream stream{1};
  std::unique_ptr<GameOptimizer> optimizer;

  explicit Player2(const spec::GameOptimizerOptions& options) {
    optimizer = MakeGameOptimizer(options, {{"w", ViewOf(x), ViewOf(gradient)}}, arena);
    optimizer->Start(stream);
  }
  void Update(int64_t update) {
    for (int call = 0; call < optimizer->calls_per_update(); ++call) {
      for (size_t i = 0; i < 3; ++i) gradient[i] = std::sin(static_cast<float>(update) + x[(i + 1) % 3]);
      const std::vector<kernels::TensorView> own = {ViewOf(gradient)};
      const double term = optimizer->needs_contributions() ? optimizer->OwnTerm(own, stream) : 0;
      optimizer->Apply({.call = call, .update = update, .term_sum = term, .contributions = &own}, stream);
    }
  }
};

TEST(GameOptimizer, RestoredStateContinuesToTheBit) {
  spec::QodaDaOptions separated;
  separated.lr_rule = spec::StepRule::kSeparated;
  std::vector<spec::GameOptimizerOptions> all = {spec::QodaDaOptions{}, separated};
  for (const auto form : {spec::GameAdamForm::kOptimistic, spec::GameAdamForm::kExtra, spec::GameAdamForm::kPlain}) {
    spec::GameAdamOptions adam;
    adam.form = form;
    all.push_back(adam);
  }
  for (const spec::GameOptimizerOptions& options : all) {
    Player2 first(options), second(options);
    for (int64_t update = 1; update <= 5; ++update) first.Update(update);
    const auto copy = [](const std::vector<NamedTensor>& from, const std::vector<NamedTensor>& to) {
      ASSERT_EQ(from.size(), to.size());
      for (size_t i = 0; i < from.size(); ++i) {
        EXPECT_EQ(from[i].name, to[i].name);
        std::memcpy(to[i].tensor.data(), from[i].tensor.data(), static_cast<size_t>(from[i].tensor.bytes()));
      }
    };
    second.x = first.x;
    second.Update(1);  // leaves marks that the restored state must cover
    std::copy(first.x.begin(), first.x.end(), second.x.begin());
    copy(first.optimizer->state(), second.optimizer->state());
    copy(first.optimizer->local_state(), second.optimizer->local_state());
    ASSERT_OK(second.optimizer->RestoreState(first.optimizer->StateText()));
    for (int64_t update = 6; update <= 9; ++update) {
      first.Update(update);
      second.Update(update);
    }
    EXPECT_EQ(first.x, second.x);
    EXPECT_EQ(first.optimizer->rates(), second.optimizer->rates());
  }
}

}  // namespace
}  // namespace trainyard::optim
