#include "worker/influence/kernel_regression.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/linalg/dense.h"

namespace trainyard::influence {
namespace {

// Every product has this many rows, the last ones zeros, so that a row's bits do not depend on its neighbours.
constexpr int64_t kRows = 64;
constexpr int64_t kMostForMedian = 1000;
constexpr double kSmallestSigma = 1e-6;

double SquaredNorm(const double* x, int64_t width) {
  double sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
  return sum;
}

double MedianDistance(const std::vector<double>& landmarks, int64_t count, int64_t width) {
  std::vector<double> distances;
  const int64_t used = std::min(count, kMostForMedian);
  for (int64_t i = 0; i < used; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      double sum = 0;
      for (int64_t c = 0; c < width; ++c) {
        const double difference =
            landmarks[static_cast<size_t>(i * width + c)] - landmarks[static_cast<size_t>(j * width + c)];
        sum += difference * difference;
      }
      distances.push_back(std::sqrt(sum));
    }
  }
  if (distances.empty()) return 1;
  const auto middle = distances.begin() + static_cast<int64_t>(distances.size() / 2);
  std::nth_element(distances.begin(), middle, distances.end());
  return *middle;
}

}  // namespace

KernelRegression::KernelRegression(spec::RegressionKernel kernel, const std::vector<float>& landmarks, int64_t width)
    : kernel_(kernel), width_(width), landmarks_(landmarks.begin(), landmarks.end()) {
  TY_CHECK_GE(width, 1);
  TY_CHECK_EQ(static_cast<int64_t>(landmarks.size()) % width, 0);
  count_ = static_cast<int64_t>(landmarks.size()) / width;
  for (int64_t i = 0; i < count_; ++i) squares_.push_back(SquaredNorm(landmarks_.data() + i * width, width));
}

void KernelRegression::KernelOf(const double* embeddings, int64_t rows, double* products) const {
  kernels::Product<double>({.transpose_b = true,
                            .m = rows,
                            .n = count_,
                            .k = width_,
                            .a = embeddings,
                            .lda = width_,
                            .b = landmarks_.data(),
                            .ldb = width_,
                            .c = products,
                            .ldc = count_});
  if (kernel_ == spec::RegressionKernel::kLinear) return;
  const double factor = -1 / (2 * sigma_ * sigma_);
  for (int64_t row = 0; row < rows; ++row) {
    const double square = SquaredNorm(embeddings + row * width_, width_);
    double* const k = products + row * count_;
    for (int64_t i = 0; i < count_; ++i) {
      k[i] = std::exp(factor * std::max(0.0, square + squares_[static_cast<size_t>(i)] - 2 * k[i]));
    }
  }
}

absl::StatusOr<KernelRegression> KernelRegression::Fit(const spec::SelectionPropagationOptions& options,
                                                       const std::vector<float>& landmarks, int64_t width,
                                                       std::vector<double> values, int64_t columns) {
  if (landmarks.empty()) return absl::InvalidArgumentError("kernel regression: there is no landmark");
  KernelRegression fit(options.kernel, landmarks, width);
  const int64_t count = fit.count_;
  TY_CHECK_EQ(static_cast<int64_t>(values.size()), count * columns);
  for (int64_t i = 0; i < count; ++i) {
    bool is_finite = std::isfinite(fit.squares_[static_cast<size_t>(i)]);
    for (int64_t c = 0; c < columns; ++c)
      is_finite = is_finite && std::isfinite(values[static_cast<size_t>(i * columns + c)]);
    if (!is_finite) {
      return absl::InvalidArgumentError(
          absl::StrCat("kernel regression: landmark ", i, " has a number that is not finite"));
    }
  }
  fit.columns_ = columns;
  fit.sigma_ = options.sigma > 0 ? options.sigma : MedianDistance(fit.landmarks_, count, width);
  fit.sigma_ = std::max(fit.sigma_, kSmallestSigma);
  std::vector<double> kernel(static_cast<size_t>(count * count));
  fit.KernelOf(fit.landmarks_.data(), count, kernel.data());
  double trace = 0;
  for (int64_t i = 0; i < count; ++i) trace += kernel[static_cast<size_t>(i * count + i)];
  const double ridge = options.damping * trace / static_cast<double>(count);
  for (int64_t i = 0; i < count; ++i) kernel[static_cast<size_t>(i * count + i)] += ridge;
  const absl::Status solved = kernels::SolvePositiveDefinite(kernel.data(), count, values.data(), columns);
  if (!solved.ok()) {
    return absl::FailedPreconditionError(absl::StrCat("kernel regression over ", count, " landmarks: the kernel is ",
                                                      solved.message(), " with damping ", options.damping,
                                                      "; raise propagation.damping"));
  }
  fit.coefficients_ = std::move(values);
  return fit;
}

KernelRegression KernelRegression::FromFit(spec::RegressionKernel kernel, double sigma,
                                           const std::vector<float>& landmarks, int64_t width,
                                           std::vector<double> coefficients, int64_t columns) {
  KernelRegression fit(kernel, landmarks, width);
  TY_CHECK_EQ(static_cast<int64_t>(coefficients.size()), fit.count_ * columns);
  fit.sigma_ = sigma;
  fit.columns_ = columns;
  fit.coefficients_ = std::move(coefficients);
  return fit;
}

void KernelRegression::Predict(const float* embeddings, int64_t rows, double* out, kernels::Stream& stream) const {
  const int64_t blocks = (rows + kRows - 1) / kRows;
  stream.pool().ParallelFor(blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> block(static_cast<size_t>(kRows * width_)), kernel(static_cast<size_t>(kRows * count_));
    std::vector<double> predicted(static_cast<size_t>(kRows * columns_));
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kRows, real = std::min(kRows, rows - first);
      std::fill(block.begin(), block.end(), 0.0);
      std::copy_n(embeddings + first * width_, real * width_, block.begin());
      KernelOf(block.data(), kRows, kernel.data());
      kernels::Product<double>({.m = kRows,
                                .n = columns_,
                                .k = count_,
                                .a = kernel.data(),
                                .lda = count_,
                                .b = coefficients_.data(),
                                .ldb = columns_,
                                .c = predicted.data(),
                                .ldc = columns_});
      std::copy_n(predicted.begin(), real * columns_, out + first * columns_);
    }
  });
}

}  // namespace trainyard::influence
