#include <cmath>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "worker/data/images/mixture.h"
#include "worker/train/gan_metrics/frechet_distance.h"
#include "worker/train/gan_metrics/mode_coverage.h"
#include "worker/train/gan_metrics/sliced_wasserstein.h"
#include "worker/train/gan_metrics/symmetric_eigen.h"

namespace trainyard::train {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::testing::HostTensor;

HostTensor Shifted(const HostTensor& points, const std::vector<double>& by) {
  std::vector<double> values = points.ToDoubles();
  for (size_t i = 0; i < values.size(); ++i) values[i] += by[i % by.size()];
  return HostTensor::Of(DType::kF32, {points.view().dim(0), points.view().dim(1)}, values);
}

TEST(SlicedWassersteinTest, ShiftIsItsLengthOverTheRootOfTheDimension) {
  Stream stream(2);
  // The same points shifted: every projection is shifted by theta . delta, so SW^2 is the mean of (theta . delta)^2,
  // whose mean is |delta|^2 / d; 4000 directions give it to about 2 sigma = 5 %.
  const HostTensor a = HostTensor::Normal(DType::kF32, {300, 3}, 1);
  const std::vector<double> delta = {3, 0, 4};
  const HostTensor b = Shifted(a, delta);
  EXPECT_NEAR(SlicedWasserstein(a, b, 4000, 7, stream), 5 / std::sqrt(3.0), 0.05 * 5 / std::sqrt(3.0));
  EXPECT_NEAR(SlicedWasserstein(a, b, 4000, 7, stream), SlicedWasserstein(b, a, 4000, 7, stream), 1e-9);
  EXPECT_EQ(SlicedWasserstein(a, a, 10, 7, stream), 0);
}

// In one dimension there is one direction, up to sign: the exact distance, here by hand.
TEST(SlicedWassersteinTest, OneDimensionIsExactAlsoForUnequalCounts) {
  Stream stream(1);
  const HostTensor a = HostTensor::Of(DType::kF32, {2, 1}, {5, 1});
  const HostTensor b = HostTensor::Of(DType::kF32, {2, 1}, {2, 3});
  EXPECT_NEAR(SlicedWasserstein(a, b, 3, 1, stream), std::sqrt((1.0 + 4.0) / 2), 1e-6);
  // Thirds against halves: 1/3 of (1, 0), 1/6 of (2, 0), 1/6 of (2, 6), 1/3 of (6, 6).
  const HostTensor thirds = HostTensor::Of(DType::kF32, {3, 1}, {6, 1, 2});
  const HostTensor halves = HostTensor::Of(DType::kF32, {2, 1}, {0, 6});
  EXPECT_NEAR(SlicedWasserstein(thirds, halves, 3, 1, stream), std::sqrt(1.0 / 3 + 4.0 / 6 + 16.0 / 6), 1e-6);
}

TEST(SlicedWassersteinTest, IsAFunctionOfSeedNotThreadsAndSeesNan) {
  Stream one(1), three(3);
  const HostTensor a = HostTensor::Normal(DType::kF32, {500, 8}, 1);
  const HostTensor b = HostTensor::Normal(DType::kF32, {400, 8}, 2, 1.5);
  const double distance = SlicedWasserstein(a, b, 32, 5, one);
  EXPECT_EQ(distance, SlicedWasserstein(a, b, 32, 5, three));
  EXPECT_NE(distance, SlicedWasserstein(a, b, 32, 6, one));
  const HostTensor bad = a.Copy();
  bad.as<float>()[17] = NAN;
  EXPECT_TRUE(std::isnan(SlicedWasserstein(bad, b, 32, 5, one)));
}

TEST(ModeCoverageTest, CountsModesAndHighQualitySamples) {
  const std::vector<std::vector<double>> centers = {{0, 0}, {10, 0}, {0, 10}};
  const HostTensor samples = HostTensor::Of(DType::kF32, {6, 2},
                                            {0.1, 0,     //
                                             -0.2, 0.2,  //
                                             10, 0.29,   //
                                             10, 0.31,   // just outside
                                             5, 5, NAN, 0});
  const ModeCoverage coverage = MeasureModes(samples, centers, 0.3);
  EXPECT_EQ(coverage.modes_covered, 2);
  EXPECT_EQ(coverage.samples_of_mode, (std::vector<int64_t>{2, 1, 0}));
  EXPECT_NEAR(coverage.high_quality_fraction, 0.5, 1e-12);
  EXPECT_EQ(MeasureModes(samples, centers, 0.3, 2).modes_covered, 1);
}

// Of the true distribution, in two dimensions, 1 - exp(-9 / 2) of the samples lie within 3 standard deviations.
TEST(ModeCoverageTest, RealSamplesCoverAll) {
  const data::GaussianMixture grid = data::GaussianMixture::Grid();
  const HostTensor samples(DType::kF32, {5000, 2});
  grid.FillReference(0, samples);
  const ModeCoverage coverage = MeasureModes(samples, grid.centers(), 3 * grid.stddev());
  EXPECT_EQ(coverage.modes_covered, 25);
  EXPECT_NEAR(coverage.high_quality_fraction, 1 - std::exp(-4.5), 0.007);
}

TEST(SymmetricEigenTest, MatrixIsItsEigenvectorsAgain) {
  const std::vector<double> matrix = {4, 1, -2, 1, 3, 0.5, -2, 0.5, 6};
  std::vector<double> vectors = matrix;
  const std::vector<double> values = SymmetricEigen(vectors, 3);
  EXPECT_LT(values[0], values[1]);
  EXPECT_NEAR(values[0] + values[1] + values[2], 13, 1e-12);
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) {
      double sum = 0;
      for (size_t k = 0; k < 3; ++k) sum += values[k] * vectors[k * 3 + i] * vectors[k * 3 + j];
      EXPECT_NEAR(sum, matrix[i * 3 + j], 1e-12);
    }
  }
}

// Four points with mean 0 and covariance B B^T exactly (n - 1 = 3): +-sqrt(3/2) times each column of B.
HostTensor PointsOf(const std::vector<double>& b, const std::vector<double>& mean) {
  const double s = std::sqrt(1.5);
  return HostTensor::Of(DType::kF32, {4, 2},
                        {mean[0] + s * b[0], mean[1] + s * b[2], mean[0] - s * b[0], mean[1] - s * b[2],
                         mean[0] + s * b[1], mean[1] + s * b[3], mean[0] - s * b[1], mean[1] - s * b[3]});
}

TEST(FrechetDistanceTest, TwoGaussiansInClosedForm) {
  // Equal covariances: the distance of the means, squared.
  ASSERT_OK_AND_ASSIGN(const double shifted,
                       FrechetDistance(PointsOf({2, 1, 0, 1}, {0, 0}), PointsOf({2, 1, 0, 1}, {3, 4})));
  EXPECT_NEAR(shifted, 25, 1e-5);
  // Diagonal: the sum of (sigma - sigma')^2.
  ASSERT_OK_AND_ASSIGN(const double scaled,
                       FrechetDistance(PointsOf({1, 0, 0, 2}, {0, 0}), PointsOf({4, 0, 0, 3}, {0, 0})));
  EXPECT_NEAR(scaled, 9 + 1, 1e-5);
  // Covariances that do not commute, which an elementwise or a one-sided square root gets wrong: for 2 x 2 matrices
  // tr (A B)^(1/2) = (tr AB + 2 (det A det B)^(1/2))^(1/2). A = [5 1; 1 1], B = [1 0; 0 9]: tr AB = 14, dets 4 and 9.
  ASSERT_OK_AND_ASSIGN(const double general,
                       FrechetDistance(PointsOf({2, 1, 0, 1}, {0, 0}), PointsOf({1, 0, 0, 3}, {0, 0})));
  EXPECT_NEAR(general, 6 + 10 - 2 * std::sqrt(14 + 2 * 6.0), 1e-5);
}

TEST(FrechetDistanceTest, SamplesOfOneDistributionAreCloseAndSingularCovariancesFine) {
  // Bias of about d^2 / n: far from the 1 of unit shifts.
  const HostTensor a = HostTensor::Normal(DType::kF32, {4000, 6}, 1);
  const HostTensor b = HostTensor::Normal(DType::kF32, {4000, 6}, 2);
  ASSERT_OK_AND_ASSIGN(const double near, FrechetDistance(a, b));
  EXPECT_LT(near, 0.02);
  const HostTensor constant = HostTensor::Filled(DType::kF32, {3, 6}, 0);
  ASSERT_OK_AND_ASSIGN(const double to_point, FrechetDistance(a, constant));
  EXPECT_NEAR(to_point, 6, 0.3);
  const HostTensor bad = HostTensor::Filled(DType::kF32, {3, 6}, NAN);
  EXPECT_THAT(FrechetDistance(a, bad), StatusIs(absl::StatusCode::kInvalidArgument, "a feature is not finite"));
}

}  // namespace
}  // namespace trainyard::train
