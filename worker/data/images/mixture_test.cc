#include "worker/data/images/mixture.h"

#include <cmath>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::data {
namespace {

using kernels::DType;
using kernels::testing::HostTensor;

// 20000 samples: means of 2500 a component are within 4.5 stddev / sqrt(2500) of theirs, counts within 5 sigma.
TEST(MixtureTest, ComponentsHaveTheirMeansDeviationsAndShares) {
  constexpr int64_t kSamples = 20000;
  const GaussianMixture ring = GaussianMixture::Ring(2.0, 0.1);
  ASSERT_EQ(ring.centers().size(), 8u);
  EXPECT_NEAR(ring.centers()[2][1], 2.0, 1e-12);
  const HostTensor samples(DType::kF32, {kSamples, 2});
  const HostTensor labels(DType::kI32, {kSamples});
  ring.FillBatch({.seed = 5, .step = 3}, samples, labels);
  std::vector<double> count(8), x(8), y(8), squares(8);
  for (int64_t i = 0; i < kSamples; ++i) {
    const auto k = static_cast<size_t>(labels.as<int32_t>()[i]);
    ASSERT_LT(k, 8u);
    const double dx = static_cast<double>(samples.as<float>()[2 * i]) - ring.centers()[k][0];
    const double dy = static_cast<double>(samples.as<float>()[2 * i + 1]) - ring.centers()[k][1];
    count[k] += 1;
    x[k] += dx;
    y[k] += dy;
    squares[k] += dx * dx + dy * dy;
  }
  for (size_t k = 0; k < 8; ++k) {
    EXPECT_NEAR(count[k], kSamples / 8.0, 5 * std::sqrt(kSamples * 7.0 / 64.0));
    EXPECT_NEAR(x[k] / count[k], 0, 0.1 * 4.5 / 50);
    EXPECT_NEAR(y[k] / count[k], 0, 0.1 * 4.5 / 50);
    EXPECT_NEAR(std::sqrt(squares[k] / count[k] / 2), 0.1, 0.1 * 4.5 / 50 / std::sqrt(2.0));
  }
}

TEST(MixtureTest, SamplesAreAFunctionOfSeedAndPositionOnly) {
  const GaussianMixture grid = GaussianMixture::Grid();
  EXPECT_EQ(grid.class_count(), 25);
  EXPECT_EQ(grid.count(), 0);
  const HostTensor whole(DType::kF32, {6, 2});
  const HostTensor first(DType::kF32, {3, 2});
  const HostTensor second(DType::kF32, {3, 2});
  const HostTensor other(DType::kF32, {6, 2});
  grid.FillBatch({.seed = 1, .step = 4}, whole);
  grid.FillBatch({.seed = 1, .step = 4, .rank = 0, .world_size = 2}, first);
  grid.FillBatch({.seed = 1, .step = 4, .rank = 1, .world_size = 2}, second);
  std::vector<double> joined = first.ToDoubles();
  for (double value : second.ToDoubles()) joined.push_back(value);
  EXPECT_EQ(joined, whole.ToDoubles());
  grid.FillBatch({.seed = 2, .step = 4}, other);
  EXPECT_NE(other.ToDoubles(), whole.ToDoubles());
}

TEST(MixtureTest, ReferencesAreNoTrainingSamples) {
  const GaussianMixture gaussian = GaussianMixture::Gaussian({1, 2, 3});
  const HostTensor batch(DType::kF32, {8, 3});
  const HostTensor reference(DType::kF32, {8, 3});
  gaussian.FillBatch({.seed = 0, .step = 0}, batch);
  gaussian.FillReference(0, reference);
  for (size_t i = 0; i < 24; ++i) EXPECT_NE(batch.ToDoubles()[i], reference.ToDoubles()[i]);
  EXPECT_NE(gaussian.Fingerprint(), GaussianMixture::Gaussian({1, 2, 4}).Fingerprint());
}

}  // namespace
}  // namespace trainyard::data
