// Evidence 6 of influence-distillation.md.
#include "worker/influence/kernel_regression.h"

#include <cmath>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/tangent/random_direction.h"

namespace trainyard::influence {
namespace {

using ::testing::HasSubstr;

template <typename T>
std::vector<T> Normal(int64_t count, uint32_t tensor) {
  std::vector<T> out(static_cast<size_t>(count));
  kernels::FillDirection({.seed = 31, .tensor = tensor}, 0, count, out.data());
  return out;
}

std::vector<double> PredictAll(const KernelRegression& fit, const std::vector<float>& embeddings, int64_t width,
                               int64_t columns, int threads = 1) {
  kernels::Stream stream(threads);
  const auto rows = static_cast<int64_t>(embeddings.size()) / width;
  std::vector<double> out(static_cast<size_t>(rows * columns));
  fit.Predict(embeddings.data(), rows, out.data(), stream);
  return out;
}

TEST(KernelRegressionTest, AllSamplesAsLandmarksGiveTheirScoresBack) {
  constexpr int64_t kSamples = 90, kWidth = 6, kColumns = 3;
  const std::vector<float> embeddings = Normal<float>(kSamples * kWidth, 1);
  const std::vector<double> scores = Normal<double>(kSamples * kColumns, 2);
  ASSERT_OK_AND_ASSIGN(const KernelRegression fit,
                       KernelRegression::Fit({.damping = 1e-10, .sigma = 1}, embeddings, kWidth, scores, kColumns));
  const std::vector<double> predicted = PredictAll(fit, embeddings, kWidth, kColumns);
  for (size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(predicted[i], scores[i], 1e-5);
}

// G_S = E_S A and scores G_S G_T^T are linear in the embeddings: as many landmarks as dimensions span them all.
TEST(KernelRegressionTest, TheLinearKernelIsExactForLinearScores) {
  constexpr int64_t kSamples = 200, kWidth = 5, kLandmarks = 20;
  const std::vector<float> embeddings = Normal<float>(kSamples * kWidth, 3);
  const std::vector<double> direction = Normal<double>(kWidth, 4);
  const auto score = [&](int64_t i) {
    double sum = 0;
    for (int64_t c = 0; c < kWidth; ++c) {
      sum += double{embeddings[static_cast<size_t>(i * kWidth + c)]} * direction[static_cast<size_t>(c)];
    }
    return sum;
  };
  std::vector<double> known;
  for (int64_t i = 0; i < kLandmarks; ++i) known.push_back(score(i));
  const std::vector<float> landmarks(embeddings.begin(), embeddings.begin() + kLandmarks * kWidth);
  ASSERT_OK_AND_ASSIGN(const KernelRegression fit,
                       KernelRegression::Fit({.kernel = spec::RegressionKernel::kLinear, .damping = 1e-10}, landmarks,
                                             kWidth, known, 1));
  const std::vector<double> predicted = PredictAll(fit, embeddings, kWidth, 1);
  for (int64_t i = 0; i < kSamples; ++i) EXPECT_NEAR(predicted[static_cast<size_t>(i)], score(i), 1e-5);
}

TEST(KernelRegressionTest, SigmaIsTheMedianDistance) {
  // Distances of 0, 1, 3 on a line: 1, 2, 3.
  ASSERT_OK_AND_ASSIGN(const KernelRegression fit, KernelRegression::Fit({}, {0, 1, 3}, 1, {1, 1, 1}, 1));
  EXPECT_EQ(fit.sigma(), 2);
  ASSERT_OK_AND_ASSIGN(const KernelRegression equal, KernelRegression::Fit({}, {2, 2, 2}, 1, {1, 1, 1}, 1));
  EXPECT_EQ(equal.sigma(), 1e-6);
  EXPECT_NEAR(PredictAll(equal, {2}, 1, 1)[0], 3 / 3.01, 1e-9);  // (J + 0.01 I) x = 1
}

TEST(KernelRegressionTest, APredictionDependsOnItsOwnEmbeddingOnly) {
  constexpr int64_t kSamples = 130, kWidth = 7, kColumns = 5;
  const std::vector<float> embeddings = Normal<float>(kSamples * kWidth, 5);
  const std::vector<float> landmarks(embeddings.begin(), embeddings.begin() + 33 * kWidth);
  ASSERT_OK_AND_ASSIGN(const KernelRegression fit,
                       KernelRegression::Fit({}, landmarks, kWidth, Normal<double>(33 * kColumns, 6), kColumns));
  const std::vector<double> all = PredictAll(fit, embeddings, kWidth, kColumns, 3);
  for (const int64_t i : {0, 1, 63, 64, 129}) {
    const std::vector<float> one(embeddings.begin() + i * kWidth, embeddings.begin() + (i + 1) * kWidth);
    const std::vector<double> alone = PredictAll(fit, one, kWidth, kColumns);
    for (int64_t c = 0; c < kColumns; ++c) {
      EXPECT_EQ(alone[static_cast<size_t>(c)], all[static_cast<size_t>(i * kColumns + c)]) << i;
    }
  }
  const KernelRegression again = KernelRegression::FromFit(spec::RegressionKernel::kRbf, fit.sigma(), landmarks, kWidth,
                                                           fit.coefficients(), kColumns);
  EXPECT_EQ(PredictAll(again, embeddings, kWidth, kColumns), all);
}

TEST(KernelRegressionTest, BadInputIsRefused) {
  EXPECT_THAT(KernelRegression::Fit({}, {}, 1, {}, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no landmark")));
  EXPECT_THAT(KernelRegression::Fit({}, {1, std::nanf("")}, 1, {1, 1}, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("landmark 1")));
}

}  // namespace
}  // namespace trainyard::influence
