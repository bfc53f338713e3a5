// Evidence 1 and 7 of influence-distillation.md.
#include "worker/influence/update_model.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/core/stream.h"
#include "kernels/optim/adamw.h"
#include "kernels/tangent/random_direction.h"

namespace trainyard::influence {
namespace {

constexpr size_t kSamples = 7, kTargets = 5, kSize = 4;

using Numbers = std::vector<double>;

Numbers Normal(size_t count, uint32_t tensor) {
  Numbers out(count);
  kernels::FillDirection({.seed = 11, .tensor = tensor}, 0, static_cast<int64_t>(count), out.data());
  return out;
}

// Squared losses of a linear model, whose second-order expansion is exact.
struct Regression {
  Numbers x = Normal(kSamples * kSize, 1), y = Normal(kSamples, 2);
  Numbers tx = Normal(kTargets * kSize, 3), ty = Normal(kTargets, 4);
  Numbers theta = Normal(kSize, 5);

  double TargetLoss(const Numbers& at) const {
    double loss = 0;
    for (size_t i = 0; i < kTargets; ++i) {
      double error = -ty[i];
      for (size_t c = 0; c < kSize; ++c) error += tx[i * kSize + c] * at[c];
      loss += error * error / 2 / kTargets;
    }
    return loss;
  }
  Numbers SampleGradients() const {
    Numbers gradients(kSamples * kSize);
    for (size_t i = 0; i < kSamples; ++i) {
      double error = -y[i];
      for (size_t c = 0; c < kSize; ++c) error += x[i * kSize + c] * theta[c];
      for (size_t c = 0; c < kSize; ++c) gradients[i * kSize + c] = error * x[i * kSize + c];
    }
    return gradients;
  }
  Numbers TargetGradient() const {
    Numbers gradient(kSize);
    for (size_t i = 0; i < kTargets; ++i) {
      double error = -ty[i];
      for (size_t c = 0; c < kSize; ++c) error += tx[i * kSize + c] * theta[c];
      for (size_t c = 0; c < kSize; ++c) gradient[c] += error * tx[i * kSize + c] / kTargets;
    }
    return gradient;
  }
  Numbers Hessian() const {
    Numbers hessian(kSize * kSize);
    for (size_t i = 0; i < kTargets; ++i) {
      for (size_t a = 0; a < kSize; ++a) {
        for (size_t b = 0; b < kSize; ++b) hessian[a * kSize + b] += tx[i * kSize + a] * tx[i * kSize + b] / kTargets;
      }
    }
    return hessian;
  }
};

// p and Q from scaled gradients, and the step itself.
struct Model {
  Numbers p, q;
};
Model ModelOf(const Numbers& scaled, const Numbers& g, const Numbers& h, const Numbers& b, double eta) {
  Model model{Numbers(kSamples), Numbers(kSamples * kSamples)};
  for (size_t i = 0; i < kSamples; ++i) {
    for (size_t r = 0; r < kSize; ++r) {
      double hb = 0;
      for (size_t c = 0; c < kSize; ++c) hb += h[r * kSize + c] * b[c];
      model.p[i] += scaled[i * kSize + r] * (g[r] - eta * hb);
    }
    for (size_t j = 0; j < kSamples; ++j) {
      for (size_t r = 0; r < kSize; ++r) {
        for (size_t c = 0; c < kSize; ++c) {
          model.q[i * kSamples + j] +=
              scaled[i * kSize + r] * h[r * kSize + c] * scaled[j * kSize + c] / double{kSamples};
        }
      }
    }
  }
  return model;
}

TEST(UpdateModelTest, GradientDescentOnAQuadraticIsPredictedExactly) {
  const Regression task;
  const Numbers gradients = task.SampleGradients();
  constexpr double kEta = 0.3;
  const Model model = ModelOf(gradients, task.TargetGradient(), task.Hessian(), Numbers(kSize), kEta);
  for (uint32_t seed = 20; seed < 25; ++seed) {
    const Numbers w = Normal(kSamples, seed);  // of any sign and sum
    Numbers moved = task.theta;
    for (size_t c = 0; c < kSize; ++c) {
      for (size_t i = 0; i < kSamples; ++i) moved[c] -= kEta / kSamples * gradients[i * kSize + c] * w[i];
    }
    const double real = task.TargetLoss(moved) - task.TargetLoss(task.theta);
    EXPECT_NEAR(PredictedChange(model.p.data(), model.q.data(), w.data(), kSamples, kEta), real, 1e-10);
    EXPECT_GT(std::abs(real), 1e-3);
  }
}

TEST(UpdateModelTest, AdamWithAFrozenSecondMomentIsPredictedExactly) {
  const Regression task;
  const FrozenAdam adam{.beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-3, .weight_decay = 0.1, .steps = 6};
  constexpr double kEta = 0.05;
  const Numbers gradients = task.SampleGradients(), g = task.TargetGradient(), h = task.Hessian();
  const Numbers m = Normal(kSize, 6), root = Normal(kSize, 7);
  Numbers a(kSize), b(kSize), scaled = gradients;
  for (size_t c = 0; c < kSize; ++c) {
    a[c] = adam.GradientScale(root[c] * root[c]);
    b[c] = adam.FixedPart(task.theta[c], m[c], root[c] * root[c]);
    for (size_t i = 0; i < kSamples; ++i) scaled[i * kSize + c] *= a[c];
  }
  double constant = 0;
  for (size_t r = 0; r < kSize; ++r) {
    constant -= kEta * g[r] * b[r];
    for (size_t c = 0; c < kSize; ++c) constant += kEta * kEta / 2 * b[r] * h[r * kSize + c] * b[c];
  }
  const Model model = ModelOf(scaled, g, h, b, kEta);
  for (uint32_t seed = 20; seed < 25; ++seed) {
    const Numbers w = Normal(kSamples, seed);
    Numbers moved = task.theta;
    for (size_t c = 0; c < kSize; ++c) {
      double mean = 0;
      for (size_t i = 0; i < kSamples; ++i) mean += gradients[i * kSize + c] * w[i] / kSamples;
      moved[c] -= kEta * (a[c] * mean + b[c]);
    }
    const double real = task.TargetLoss(moved) - task.TargetLoss(task.theta);
    EXPECT_NEAR(PredictedChange(model.p.data(), model.q.data(), w.data(), kSamples, kEta) + constant, real, 1e-10);
  }
}

// m = 0, v = g^2 and t0 = 0. The optimizer adds g^2 to v before it divides: with v0 = g^2 (1 - beta2) beneath, what it
// divides by is our D of v = beta2 v0 + (1 - beta2) g^2.
TEST(UpdateModelTest, IsTheUpdateOfOurAdamW) {
  constexpr double kRate = 0.01;
  const Numbers theta0 = Normal(16, 1), g = Normal(16, 2), m0 = Normal(16, 3);
  for (const int64_t steps : {0, 3}) {
    FrozenAdam adam{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1, .steps = steps};
    kernels::Stream stream(1);
    for (size_t i = 0; i < theta0.size(); ++i) {
      auto theta = static_cast<float>(theta0[i]), gradient = static_cast<float>(g[i]);
      auto m = steps == 0 ? 0.0f : static_cast<float>(m0[i]), v = static_cast<float>(g[i] * g[i]);
      const double m_before = m, v_after = adam.beta2 * v + (1 - adam.beta2) * g[i] * g[i];
      const auto one = [](float* data) { return kernels::TensorView(data, kernels::DType::kF32, {1}); };
      AdamW({.param = one(&theta),
             .grad = one(&gradient),
             .m = one(&m),
             .v = one(&v),
             .lr = static_cast<float>(kRate),
             .beta1 = 0.9f,
             .beta2 = 0.95f,
             .eps = 1e-8f,
             .weight_decay = 0.1f,
             .step = steps + 1},
            stream);
      const double expected =
          theta0[i] - kRate * (adam.GradientScale(v_after) * g[i] + adam.FixedPart(theta0[i], m_before, v_after));
      EXPECT_NEAR(theta, expected, 1e-6);
      if (steps == 0) {  // a = D
        EXPECT_NEAR(adam.GradientScale(v_after) * adam.Divisor(v_after), 1, 1e-12);
      }
    }
  }
}

TEST(UpdateModelTest, LessDirectionIsTheFormula) {
  const FrozenAdam adam{.beta1 = 0.5, .beta2 = 0.75, .epsilon = 0.25, .steps = 9};
  EXPECT_DOUBLE_EQ(adam.LessDirection(2, 4, 1), (2.0 + 1.0) / std::sqrt(0.75 + 1.0 + 0.25));
}

}  // namespace
}  // namespace trainyard::influence
