// The claims of methods/eco.md, section 5, held by the formulas of eco_formula.h in double: no kernel, no storage. A
// grid of step kDelta stands for the quantizer.
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/optim/eco_formula.h"

namespace trainyard::kernels::internal {
namespace {

constexpr double kDelta = 1.0 / 16;
constexpr double kPi = 3.14159265358979323846;

using Quantizer = std::function<double(double)>;

double ToGrid(double x) {
  return std::nearbyint(x / kDelta) * kDelta;
}

EcoSettings<double> Sgdm(double beta, double lr) {
  return {.form = EcoForm::kSgdm,
          .lr = lr,
          .beta1 = beta,
          .beta2 = 0,
          .eps = 0,
          .weight_decay = 0,
          .min_learning_rate = 1e-9};
}

// One weight under SGDM, in any of its forms.
struct SgdmModel {
  double weight = 0, m = 0, error = 0;

  void Step(const EcoSettings<double>& settings, double gradient, const Quantizer& quantize) {
    const EcoConstants<double> k = MakeEcoConstants(settings);
    const double next = EcoSgdmElement(k, gradient, weight, m);
    weight = quantize(next);
    const double e = next - weight;
    m = EcoInjectSgdm(k, m, settings.form == EcoForm::kSgdmExact ? error : 0.0, e);
    error = k.injection == 0 ? 0 : e;
  }
};

const Quantizer kExactly = [](double x) { return x; };

// A wrong sign, a missing 1 / lr or (1 - b) pays back another sum.
TEST(EcoModel, SgdmPaysALostDisplacementBackExactly) {
  SgdmModel model;
  const EcoSettings<double> settings = Sgdm(0.9, 0.01);
  model.Step(settings, 0, [](double x) { return x - 0.03; });  // e = 0.03
  EXPECT_DOUBLE_EQ(model.weight, -0.03);
  model.Step(settings, 0, kExactly);
  EXPECT_NEAR(model.weight, -0.03 + 0.1 * 0.03, 1e-12);  // a part 1 - b in the next step
  for (int step = 0; step < 1000; ++step) model.Step(settings, 0, kExactly);
  EXPECT_NEAR(model.weight, 0, 1e-12);
}

TEST(EcoModel, AdamWPaysALostDisplacementBackExactly) {
  EcoSettings<double> settings = Sgdm(0.9, 0.01);
  settings.form = EcoForm::kAdamW;
  settings.beta2 = 1;  // v is frozen
  settings.step = 1'000'000;
  EcoConstants<double> k = MakeEcoConstants(settings);
  ASSERT_EQ(k.adamw.inverse_correction1, 1.0);  // c1 = 1
  k.adamw.inverse_correction2 = 1;
  k.adamw.eps = 1e-9;
  double weight = 0, m = 0, v = 0.37;
  for (int step = 0; step < 1000; ++step) {
    double divisor;
    const double next = AdamWElement(k.adamw, 0.0, weight, m, v, divisor);
    weight = step == 0 ? next - 0.03 : next;
    m = EcoInjectAdamW(k, m, divisor, next - weight);
  }
  EXPECT_EQ(v, 0.37);  // never sees the injection
  EXPECT_NEAR(weight, 0, 1e-12);
}

// With decoupled decay the pending error shrinks like the weight it is missing from: then weight plus error of the
// exact form is the weight of SGDM that rounds nothing.
TEST(EcoModel, DecayCorrectionKeepsThePendingErrorInStepWithTheWeight) {
  for (const bool is_corrected : {true, false}) {
    EcoSettings<double> settings = Sgdm(0.9, 0.1);
    settings.form = EcoForm::kSgdmExact;
    settings.weight_decay = 0.2;
    settings.decay_correction = is_corrected;
    SgdmModel unrounded{.weight = 1}, rounded{.weight = 1};
    std::mt19937_64 random(1);
    std::normal_distribution<double> normal;
    double deviation = 0;
    for (int step = 0; step < 300; ++step) {
      const double gradient = 0.1 * normal(random);
      unrounded.Step(settings, gradient, kExactly);
      rounded.Step(settings, gradient, ToGrid);
      deviation = std::max(deviation, std::abs(rounded.weight + rounded.error - unrounded.weight));
    }
    if (is_corrected) {
      EXPECT_LT(deviation, 1e-12);
    } else {
      EXPECT_GT(deviation, 1e-6);
    }
  }
}

// methods/eco.md, pitfall 2: nearest rounding moves only once the momentum has grown to delta / (2 lr).
TEST(EcoModel, LatencyIsThatOfTheMomentumAndTheRateThatOfTheGradient) {
  const double betas[] = {0.5, 0.9, 0.95, 0.99};
  const int first_moves[] = {7, 32, 63, 313};
  for (size_t i = 0; i < 4; ++i) {
    SgdmModel model, naive;
    EcoSettings<double> settings = Sgdm(betas[i], 0.01);
    EcoSettings<double> without = settings;
    without.inject = false;
    std::vector<int> moves;
    double before = 0;
    for (int step = 1; step <= 5000; ++step) {
      model.Step(settings, 1, ToGrid);
      naive.Step(without, 1, ToGrid);
      if (model.weight != before) moves.push_back(step);
      before = model.weight;
    }
    EXPECT_EQ(moves[0], first_moves[i]) << betas[i];
    EXPECT_EQ(naive.weight, 0);
    if (betas[i] == 0.9) {
      EXPECT_THAT(std::vector<int>(moves.begin(), moves.begin() + 4), ::testing::ElementsAre(32, 38, 44, 50));
      EXPECT_EQ(model.weight, -49.75);
    }
    // 6.25 steps a grid step, from the first one on.
    EXPECT_NEAR(static_cast<double>(moves.back() - moves[0]) / static_cast<double>(moves.size() - 1), 6.25, 0.02);
  }
}

// Keeping the error makes the momentum that of SGDM on weights that are never rounded.
TEST(EcoModel, ExactFormFollowsMasterWeightsAndThePlainFormDoesNot) {
  for (const EcoForm form : {EcoForm::kSgdmExact, EcoForm::kSgdm}) {
    EcoSettings<double> settings = Sgdm(0.9, 0.05);
    settings.form = form;
    EcoSettings<double> plain = Sgdm(0.9, 0.05);
    plain.inject = false;
    SgdmModel model{.weight = 1}, master{.weight = 1};
    std::mt19937_64 random(7);
    std::normal_distribution<double> normal;
    double deviation = 0;
    for (int step = 0; step < 300; ++step) {
      const double noise = normal(random);
      const double read = ToGrid(master.weight);  // what the network sees of a master weight
      deviation = std::max(deviation, std::abs(model.weight - read));
      model.Step(settings, model.weight - 0.3 + 0.5 * noise, ToGrid);
      master.Step(plain, read - 0.3 + 0.5 * noise, kExactly);
    }
    if (form == EcoForm::kSgdmExact) {
      EXPECT_LT(deviation, 1e-12);
    } else {
      EXPECT_GE(deviation, kDelta);
    }
  }
}

TEST(EcoModel, NothingIsDividedByASmallLearningRate) {
  for (const EcoForm form : {EcoForm::kAdamW, EcoForm::kSgdm, EcoForm::kSgdmExact}) {
    for (const double lr : {0.0, 0.99e-9}) {
      EcoSettings<double> settings = Sgdm(0.9, lr);
      settings.form = form;
      const EcoConstants<double> k = MakeEcoConstants(settings);
      EXPECT_EQ(k.injection, 0);
      EXPECT_EQ(k.payback, 0);
      settings.lr = 1e-9;
      EXPECT_LT(MakeEcoConstants(settings).injection, 0);
    }
  }
}

// The quadratic ensemble: f = (w - w*)^2 / 2 over many coordinates that start within +-2 of w*, SGDM with b = 0.9; the
// root of the mean square of (w - w*) / delta over the last tenth of 20,000 steps.
enum class Method { kMaster, kNaive, kEco, kExact };

double Ensemble(Method method, bool is_stochastic, double peak, bool is_cosine) {
  constexpr int kCoordinates = 300, kSteps = 20000;
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> uniform(0, 1);
  struct Coordinate {
    double target, master;
    SgdmModel model;
  };
  std::vector<Coordinate> coordinates;
  for (int i = 0; i < kCoordinates; ++i) {
    const double target = uniform(random);
    const double start = ToGrid(target + 4 * uniform(random) - 2);
    coordinates.push_back({target, start, {.weight = start}});
  }
  uint64_t state = 12345;
  const auto draw = [&state] {  // xorshift: a distribution object would be most of the time
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<double>(state >> 11) * 0x1p-53;
  };
  const auto quantize = [&](double x) {
    if (!is_stochastic) return ToGrid(x);
    const double scaled = x / kDelta, below = std::floor(scaled);
    return (below + (draw() < scaled - below ? 1 : 0)) * kDelta;
  };
  double squares = 0;
  for (int step = 0; step < kSteps; ++step) {
    const double progress = static_cast<double>(step) / kSteps;
    EcoSettings<double> settings = Sgdm(0.9, is_cosine ? peak * (0.01 + 0.495 * (1 + std::cos(kPi * progress))) : peak);
    settings.form = method == Method::kExact ? EcoForm::kSgdmExact : EcoForm::kSgdm;
    settings.inject = method == Method::kEco || method == Method::kExact;
    const EcoConstants<double> k = MakeEcoConstants(settings);
    for (Coordinate& c : coordinates) {
      SgdmModel& w = c.model;
      if (method == Method::kMaster) {
        c.master = EcoSgdmElement(k, w.weight - c.target, c.master, w.m);
        w.weight = quantize(c.master);
      } else {
        const double next = EcoSgdmElement(k, w.weight - c.target, w.weight, w.m);
        w.weight = quantize(next);
        const double e = next - w.weight;
        w.m = EcoInjectSgdm(k, w.m, method == Method::kExact ? w.error : 0.0, e);
        w.error = e;
      }
      if (step >= kSteps - kSteps / 10) squares += std::pow((w.weight - c.target) / kDelta, 2);
    }
  }
  return std::sqrt(squares / (kCoordinates * (kSteps / 10)));
}

TEST(EcoModel, QuadraticEnsembleHasTheFloorsOfTheTable) {
  struct Row {
    const char* name;
    Method method;
    bool is_stochastic;
    double expected[4];  // lr 0.1 constant, cosine; 0.01 constant, cosine
  };
  const Row rows[] = {
      {"master, nearest", Method::kMaster, false, {0.41, 0.41, 0.41, 0.41}},
      {"naive, nearest", Method::kNaive, false, {2.64, 2.60, 18.4, 18.6}},
      {"naive, SR", Method::kNaive, true, {0.51, 0.41, 0.42, 0.42}},
      {"ECO, nearest", Method::kEco, false, {0.41, 0.33, 0.40, 0.35}},
      {"ECO, SR", Method::kEco, true, {0.53, 0.41, 0.42, 0.41}},
      {"exact, nearest", Method::kExact, false, {0.41, 0.29, 0.41, 0.29}},
      {"exact, SR", Method::kExact, true, {0.41, 0.41, 0.40, 0.41}},
  };
  for (const Row& row : rows) {
    std::printf("%-16s", row.name);
    for (int column = 0; column < 4; ++column) {
      const double measured = Ensemble(row.method, row.is_stochastic, column < 2 ? 0.1 : 0.01, column % 2 == 1);
      std::printf("  %6.3f (%.2f)", measured, row.expected[column]);
      // 300 coordinates: the root of the mean square is known to 3 % or so.
      EXPECT_NEAR(measured, row.expected[column], 0.1 * row.expected[column] + 0.01) << row.name << " " << column;
    }
    std::printf("\n");
  }
}

}  // namespace
}  // namespace trainyard::kernels::internal
