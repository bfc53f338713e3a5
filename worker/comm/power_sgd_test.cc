#include <cmath>

#include "gtest/gtest.h"
#include "worker/comm/orthonormal.h"
#include "worker/comm/testing/exchanging.h"

namespace trainyard::comm {
namespace {

const TestModel kModel = {{{"a.weight", 96, 130}, {"a.bias", 96}}, {{"b.weight", 40, 37}}};

ExchangeRun MakeRun(int rank_of_factors, int ranks) {
  ExchangeRun run{.model = kModel, .ranks = ranks, .scale = 1.0f / static_cast<float>(ranks)};
  run.options.communication.codec = spec::PowerSgdCodec{rank_of_factors, 0, 2.0};
  run.options.communication.error_feedback = true;
  return run;
}

// a's gradient has rank 3 over all ranks: u v' of each, summed; the rest is Gaussian.
void FillLowRank(int rank, int64_t step, std::vector<float>* values) {
  FillGaussian(rank, step, values);
  for (int row = 0; row < 96; ++row) {
    for (int col = 0; col < 130; ++col) {
      double value = 0;
      for (int k = 0; k < 3; ++k) value += std::sin(1.0 + row * (k + 1)) * std::cos(k + 0.3 * col) * (rank + k + 1);
      (*values)[static_cast<size_t>(row * 130 + col)] = static_cast<float>(value);
    }
  }
}

TEST(OrthonormalTest, ColumnsAreOrthonormalTo1e5) {
  const int count = 8;
  const int64_t length = 1001;
  std::vector<float> vectors(static_cast<size_t>(count * length));
  FillGaussian(0, 0, &vectors);
  for (int64_t i = 0; i < length; ++i)
    vectors[static_cast<size_t>(length + i)] += 1e4f * vectors[static_cast<size_t>(i)];
  for (int64_t i = 0; i < length; ++i) vectors[static_cast<size_t>(2 * length + i)] *= 1e-30f;
  EXPECT_EQ(Orthonormalize(vectors.data(), count, length), 0);
  for (int a = 0; a < count; ++a) {
    for (int b = 0; b < count; ++b) {
      double dot = 0;
      for (int64_t i = 0; i < length; ++i) {
        dot += static_cast<double>(vectors[static_cast<size_t>(a * length + i)]) *
               static_cast<double>(vectors[static_cast<size_t>(b * length + i)]);
      }
      EXPECT_NEAR(dot, a == b ? 1.0 : 0.0, 1e-5) << a << b;
    }
  }
}

TEST(OrthonormalTest, WhatLiesInTheSpanBecomesZero) {
  std::vector<float> vectors = {1, 2, 3, 4, 2, 4, 6, 8, 0, 0, 0, 0};
  EXPECT_EQ(Orthonormalize(vectors.data(), 3, 4), 2);
  for (size_t i = 4; i < 12; ++i) EXPECT_EQ(vectors[i], 0.0f);
}

// quantized-comm.md section 5, item 10: rank 4 recovers a mean of rank 3 to 1e-5 in one step, without feedback.
TEST(PowerSgdTest, AMeanOfLowRankIsRecoveredInOneStep) {
  for (const int ranks : {2, 3}) {
    ExchangeRun run = MakeRun(4, ranks);
    run.fill = FillLowRank;
    const ExchangeOutcome outcome = RunExchange(run);
    ExpectOk(outcome);
    std::vector<double> mean(outcome.values[0].size());
    std::vector<float> one(mean.size());
    for (int rank = 0; rank < ranks; ++rank) {
      FillLowRank(rank, 0, &one);
      for (size_t i = 0; i < mean.size(); ++i) mean[i] += static_cast<double>(one[i]) / ranks;
    }
    double error = 0, energy = 0;
    for (size_t i = 0; i < 96 * 130; ++i) {
      error += std::pow(static_cast<double>(outcome.values[0][i]) - mean[i], 2);
      energy += mean[i] * mean[i];
    }
    EXPECT_LT(std::sqrt(error / energy), 1e-5);
    // The vector travels as it is.
    for (size_t i = 96 * 130; i < 96 * 130 + 96; ++i) ASSERT_NEAR(outcome.values[0][i], mean[i], 1e-6);
    for (const std::vector<float>& values : outcome.values) EXPECT_EQ(values, outcome.values[0]);
  }
}

// All-reduce bytes of r (n + m) floats and of what is not factorised: b's 4 (40 + 37) 2 is below 40 * 37, so it is.
TEST(PowerSgdTest, BytesAreThoseOfTheFactors) {
  const ExchangeOutcome outcome = RunExchange(MakeRun(4, 2));
  ExpectOk(outcome);
  const auto all_reduce = [](int64_t count) { return 4 * count; };  // 2 (R-1)/R of it, R = 2; counts are even grains
  const int64_t floats = 4 * (96 + 130) + 96 + 4 * (40 + 37);
  int64_t sent = 0;
  for (const ExchangeStats& stats : outcome.stats) sent += stats.bytes_sent;
  EXPECT_EQ(sent, 2 * all_reduce(floats));
}

// Before start_step nothing is lost; then feedback brings back what a step leaves out: over many steps of one gradient
// the mean of what arrives comes near it.
TEST(PowerSgdTest, StartsLateAndFeedbackBringsBackWhatIsLeftOut) {
  ExchangeRun run = MakeRun(2, 2);
  run.options.communication.codec = spec::PowerSgdCodec{2, 3, 2.0};
  run.steps = 83;
  run.fill = [](int rank, int64_t, std::vector<float>* values) { FillGaussian(rank, 0, values); };
  const size_t count = static_cast<size_t>(ElementsOf(kModel));
  std::vector<float> a(count), b(count);
  FillGaussian(0, 0, &a);
  FillGaussian(1, 0, &b);
  std::vector<double> sum(count);
  run.after = [&](int rank, int64_t step, GradientExchange&, std::vector<float>& values) {
    if (rank != 0) return;
    double error = 0, mean_error = 0, energy = 0;
    for (size_t i = 0; i < 96 * 130; ++i) {
      const double exact = 0.5 * (static_cast<double>(a[i]) + static_cast<double>(b[i]));
      if (step >= 3) sum[i] += static_cast<double>(values[i]);
      error += std::pow(static_cast<double>(values[i]) - exact, 2);
      mean_error += std::pow(sum[i] / static_cast<double>(std::max<int64_t>(step - 2, 1)) - exact, 2);
      energy += exact * exact;
    }
    if (step < 3) {
      EXPECT_LT(error / energy, 1e-12);
    }
    if (step == 3) {
      EXPECT_GT(error / energy, .5);  // two of 96 directions of noise
    }
    if (step == 82) {
      EXPECT_LT(mean_error / energy, .15);
    }
  };
  ExpectOk(RunExchange(run));
}

}  // namespace
}  // namespace trainyard::comm
