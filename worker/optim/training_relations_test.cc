// Small Wasserstein GANs in closed form (methods/qoda.md, section 5, "small training runs"): four workers, real codes.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/optim/testing/simulated_game.h"

namespace trainyard::optim {
namespace {

// D(x) = phi . x, G(z) = z + theta, data N(mu, I): the players' gradients are -phi, and the difference of the batch
// means, fake less real. theta comes first.
struct LinearWgan {
  static constexpr size_t kDim = 64;
  static constexpr int kBatch = 32;  // of a worker
  static constexpr int kWorkers = 4;
  std::vector<float> mu = std::vector<float>(kDim);
  std::mt19937_64 random{7};
  std::normal_distribution<float> normal;

  LinearWgan() {
    for (float& value : mu) value = normal(random);
    float squares = 0;
    for (const float value : mu) squares += value * value;
    for (float& value : mu) value *= 8.26f / std::sqrt(squares);  // the distance that the figures are of
  }

  // The means of 32 samples of N(0, I) and of N(mu, I), as their distributions are.
  Oracle oracle() {
    return [this](int, const std::vector<float>& x, std::vector<float>* v) {
      const float deviation = std::sqrt(2.0f / kBatch);
      for (size_t i = 0; i < kDim; ++i) {
        (*v)[i] = -x[kDim + i];
        (*v)[kDim + i] = x[i] - mu[i] + deviation * normal(random);
      }
    };
  }
  template <typename T>
  double Error(const std::vector<T>& theta) const {
    double squares = 0;
    for (size_t i = 0; i < kDim; ++i)
      squares += std::pow(static_cast<double>(theta[i]) - static_cast<double>(mu[i]), 2);
    return std::sqrt(squares);
  }
};

double AverageError(int bits, int steps) {
  LinearWgan wgan;
  SimulatedGame game(spec::QodaDaOptions{}, std::vector<float>(2 * LinearWgan::kDim), LinearWgan::kWorkers,
                     {.bits = bits});
  const Oracle oracle = wgan.oracle();
  for (int t = 0; t < steps; ++t) game.Update(oracle);
  return wgan.Error(game.Average());
}

TEST(LinearWganTest, DualAveragingReachesTheStatisticalFloorAtAnyBits) {
  constexpr int kSteps = 20000;
  const double floor = std::sqrt(2.0 * LinearWgan::kDim / (double{kSteps} * LinearWgan::kWorkers * LinearWgan::kBatch));
  EXPECT_NEAR(floor, .0071, .0001);
  const double exact = AverageError(0, kSteps), four = AverageError(4, kSteps), two = AverageError(2, kSteps);
  std::printf("linear WGAN: fp32 %.4f, 4 bits %.4f, 2 bits %.4f, floor %.4f\n", exact, four, two, floor);
  EXPECT_LT(exact, 2 * floor);
  EXPECT_LT(four, 2 * floor);
  EXPECT_LT(two, 2 * floor);
  EXPECT_NEAR(four, exact, .3 * exact);
}

// What QODA is measured against must fail here, or the test tells nothing.
TEST(LinearWganTest, SimultaneousDescentAscentDiverges) {
  LinearWgan wgan;
  const Oracle oracle = wgan.oracle();
  std::vector<float> x(2 * LinearWgan::kDim), v(x.size()), mean(x.size());
  for (int t = 0; t < 2000; ++t) {
    std::fill(mean.begin(), mean.end(), 0.0f);
    for (int k = 0; k < LinearWgan::kWorkers; ++k) {
      oracle(k, x, &v);
      for (size_t i = 0; i < x.size(); ++i) mean[i] += v[i] / LinearWgan::kWorkers;
    }
    for (size_t i = 0; i < x.size(); ++i) x[i] -= 0.05f * mean[i];
  }
  EXPECT_GT(wgan.Error(x), 80);
}

TEST(LinearWganTest, OptimisticAdamStaysNearWithFourBits) {
  for (const int bits : {0, 4}) {
    LinearWgan wgan;
    spec::GameAdamOptions adam;
    adam.lr_d = adam.lr_g = .002;
    SimulatedGame game(adam, std::vector<float>(2 * LinearWgan::kDim), LinearWgan::kDim, LinearWgan::kWorkers,
                       {.bits = bits});
    const Oracle oracle = wgan.oracle();
    std::vector<double> ema(LinearWgan::kDim);
    for (int t = 0; t < 20000; ++t) {
      game.Update(oracle);
      for (size_t i = 0; i < ema.size(); ++i) ema[i] += .001 * (static_cast<double>(game.x()[i]) - ema[i]);
    }
    std::printf("linear WGAN, optimistic Adam, %d bits: error of the moving average %.4f\n", bits, wgan.Error(ema));
    EXPECT_LT(wgan.Error(ema), bits == 0 ? .06 : .12);
  }
}

// D(x) = x' W x, G(z) = V z, data N(0, S), d = 2 (Daskalakis et al., 2018): dL_D/dW = VV' - S, dL_G/dV = -(W + W') V.
struct CovarianceWgan {
  static constexpr double kTarget[4] = {1.0, 0.4, 0.4, 0.5};

  template <typename T>
  static void Gradients(const std::vector<T>& x, std::vector<T>* v) {  // V, then W, row by row
    const T* const g = x.data();
    const T* const w = x.data() + 4;
    for (size_t i = 0; i < 2; ++i) {
      for (size_t j = 0; j < 2; ++j) {
        (*v)[4 + 2 * i + j] = g[2 * i] * g[2 * j] + g[2 * i + 1] * g[2 * j + 1] - static_cast<T>(kTarget[2 * i + j]);
        (*v)[2 * i + j] = 0;
        for (size_t k = 0; k < 2; ++k) (*v)[2 * i + j] -= (w[2 * i + k] + w[2 * k + i]) * g[2 * k + j];
      }
    }
  }
  template <typename T>
  static double Error(const std::vector<T>& x) {
    double error = 0, size = 0;
    for (size_t i = 0; i < 2; ++i) {
      for (size_t j = 0; j < 2; ++j) {
        const double made = static_cast<double>(x[2 * i] * x[2 * j] + x[2 * i + 1] * x[2 * j + 1]);
        error += std::pow(made - kTarget[2 * i + j], 2);
        size += std::pow(kTarget[2 * i + j], 2);
      }
    }
    return std::sqrt(error / size);
  }
};

const std::vector<float> kCovarianceStart = {.6f, .1f, -.1f, .9f, 0, 0, 0, 0};

TEST(CovarianceWganTest, OptimisticRunFindsTheCovarianceAndPlainStepsDoNot) {
  for (const int bits : {0, 4}) {
    spec::QodaDaOptions qoda;
    qoda.lr_scale = .2;
    SimulatedGame game(qoda, kCovarianceStart, 4, {.bits = bits});
    for (int t = 0; t < 20000; ++t) {
      game.Update([](int, const std::vector<float>& x, std::vector<float>* v) { CovarianceWgan::Gradients(x, v); });
    }
    std::printf("covariance WGAN, %d bits: error %.4f\n", bits, CovarianceWgan::Error(game.x()));
    EXPECT_LT(CovarianceWgan::Error(game.x()), .1) << bits;
  }
  std::vector<double> x(kCovarianceStart.begin(), kCovarianceStart.end()), v(8);
  for (int t = 0; t < 20000; ++t) {
    CovarianceWgan::Gradients(x, &v);
    for (size_t i = 0; i < 8; ++i) x[i] -= .05 * v[i];
    if (!std::isfinite(x[0])) break;
  }
  const double plain = CovarianceWgan::Error(x);
  std::printf("covariance WGAN, plain steps: error %.4f\n", plain);
  EXPECT_FALSE(plain < .1);
}

}  // namespace
}  // namespace trainyard::optim
