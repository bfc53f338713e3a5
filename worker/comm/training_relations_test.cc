// SGD on the mean of four quadratics that disagree (quantized-comm.md section 5, "training relations"): worker k's
// gradient is x - x* + h_k with sum h_k = 0. What is asserted are the laws, which separate right from wrong:
// nearest rounding stalls wherever the learning rate is; stochastic rounding shrinks like its root; error feedback
// shrinks like the rate itself; one bit of maxmin with feedback blows up.
#include <cmath>

#include "gtest/gtest.h"
#include "worker/comm/testing/exchanging.h"

namespace trainyard::comm {
namespace {

constexpr int kRanks = 4;
constexpr int64_t kSize = 1024;

// Root mean square error of x over the last tenth of the steps.
double FinalError(const spec::CodecOptions& codec, bool feedback, double rate, int64_t steps) {
  std::vector<std::vector<float>> h(kRanks, std::vector<float>(kSize));
  for (int rank = 0; rank < kRanks; ++rank) FillGaussian(rank, 1000, &h[static_cast<size_t>(rank)]);
  for (size_t i = 0; i < kSize; ++i) {
    float mean = 0;
    for (const auto& one : h) mean += one[i] / kRanks;
    for (auto& one : h) one[i] -= mean;
  }
  std::vector<std::vector<float>> x(kRanks, std::vector<float>(kSize, 1.0f));  // x* = 0
  ExchangeRun run{.model = {{{"a.weight", 32, 32}}}, .ranks = kRanks, .steps = steps, .scale = 1.0f / kRanks};
  run.options.communication.codec = codec;
  run.options.communication.exchange = spec::ExchangeKind::kAllGather;
  run.options.communication.error_feedback = feedback;
  run.options.communication.hash_check_interval_steps = 0;
  run.fill = [&](int rank, int64_t, std::vector<float>* gradient) {
    const auto r = static_cast<size_t>(rank);
    for (size_t i = 0; i < kSize; ++i) (*gradient)[i] = x[r][i] + h[r][i];
  };
  double sum = 0;
  int64_t count = 0;
  run.after = [&](int rank, int64_t step, GradientExchange&, std::vector<float>& gradient) {
    auto& own = x[static_cast<size_t>(rank)];
    double square = 0;
    for (size_t i = 0; i < kSize; ++i) {
      own[i] -= static_cast<float>(rate) * gradient[i];
      square += static_cast<double>(own[i]) * static_cast<double>(own[i]);
    }
    if (rank != 0 || step < steps * 9 / 10) return;
    sum += square / kSize;
    ++count;
  };
  ExpectOk(RunExchange(run));
  for (const auto& one : x) EXPECT_EQ(one, x[0]);
  return std::sqrt(sum / static_cast<double>(count));
}

struct AtTwoRates {
  double fast, slow;  // learning rate .05, .005
};
AtTwoRates Errors(const spec::CodecOptions& codec, bool feedback) {
  return {FinalError(codec, feedback, .05, 400), FinalError(codec, feedback, .005, 2500)};
}

using spec::MaxminCodec;
using spec::Rounding;

TEST(TrainingRelationsTest, NearestStallsAndFeedbackCuresIt) {
  const AtTwoRates stalled = Errors(MaxminCodec{2, 512, Rounding::kNearest}, false);
  EXPECT_NEAR(stalled.fast, .226, .06);
  EXPECT_NEAR(stalled.slow / stalled.fast, 1.0, .15);
  const AtTwoRates cured = Errors(MaxminCodec{2, 512, Rounding::kNearest}, true);
  EXPECT_NEAR(cured.fast, .0145, .004);
  EXPECT_NEAR(cured.slow, .0014, .0005);
}

TEST(TrainingRelationsTest, StochasticShrinksWithTheRootOfTheRate) {
  const AtTwoRates errors = Errors(MaxminCodec{4, 512, Rounding::kStochastic}, false);
  EXPECT_NEAR(errors.fast, .0110, .003);
  EXPECT_NEAR(errors.fast / errors.slow, std::sqrt(10.0), .8);
}

TEST(TrainingRelationsTest, SignsStallWithoutFeedback) {
  const AtTwoRates stalled = Errors(spec::SignMeanCodec{512}, false);
  EXPECT_NEAR(stalled.slow / stalled.fast, 1.0, .15);
  const AtTwoRates cured = Errors(spec::SignMeanCodec{512}, true);
  EXPECT_NEAR(cured.fast / cured.slow, 10.0, 3.0);
  EXPECT_LT(cured.fast, stalled.fast / 4);
}

TEST(TrainingRelationsTest, TopKNeedsFeedback) {
  const double without = FinalError(spec::TopKCodec{.05}, false, .05, 400);
  const double with = FinalError(spec::TopKCodec{.05}, true, .005, 2500);
  EXPECT_LT(with, without / 3);
}

// The spec refuses it; this is why. c = 8.3 > 1.
TEST(TrainingRelationsTest, OneBitMaxminWithFeedbackDiverges) {
  const double error = FinalError(MaxminCodec{1, 512, Rounding::kStochastic}, true, .05, 60);
  EXPECT_TRUE(!(error < 10)) << error;
}

}  // namespace
}  // namespace trainyard::comm
