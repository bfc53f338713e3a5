#include "worker/train/gan_metrics/frechet_distance.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/status/status.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "worker/train/gan_metrics/symmetric_eigen.h"

namespace trainyard::train {
namespace {

using Matrix = std::vector<double>;  // (dim, dim)

struct Moments {
  std::vector<double> mean;
  Matrix covariance;  // divided by n - 1
};

absl::StatusOr<Moments> MomentsOf(const kernels::TensorView& features) {
  const int64_t count = features.dim(0);
  const auto dim = static_cast<size_t>(features.dim(1));
  const float* values = features.as<float>();
  if (!std::all_of(values, values + features.size(), [](float value) { return std::isfinite(value); })) {
    return absl::InvalidArgumentError("a feature is not finite");
  }
  Moments moments{std::vector<double>(dim), Matrix(dim * dim)};
  for (int64_t n = 0; n < count; ++n) {
    const float* row = values + n * features.dim(1);
    for (size_t i = 0; i < dim; ++i) moments.mean[i] += static_cast<double>(row[i]);
  }
  for (double& mean : moments.mean) mean /= static_cast<double>(count);
  std::vector<double> deviation(dim);
  for (int64_t n = 0; n < count; ++n) {
    const float* row = values + n * features.dim(1);
    for (size_t i = 0; i < dim; ++i) deviation[i] = static_cast<double>(row[i]) - moments.mean[i];
    for (size_t i = 0; i < dim; ++i) {
      double* sums = moments.covariance.data() + i * dim;
      for (size_t j = 0; j < dim; ++j) sums[j] += deviation[i] * deviation[j];
    }
  }
  for (double& value : moments.covariance) value /= static_cast<double>(count - 1);
  return moments;
}

Matrix Product(const Matrix& a, const Matrix& b, size_t dim) {
  Matrix c(dim * dim);
  for (size_t i = 0; i < dim; ++i) {
    for (size_t k = 0; k < dim; ++k) {
      for (size_t j = 0; j < dim; ++j) c[i * dim + j] += a[i * dim + k] * b[k * dim + j];
    }
  }
  return c;
}

// Of a covariance: eigenvalues below 0 are rounding.
Matrix SquareRoot(Matrix matrix, size_t dim) {
  const std::vector<double> values = SymmetricEigen(matrix, static_cast<int64_t>(dim));
  Matrix root(dim * dim);
  for (size_t k = 0; k < dim; ++k) {
    const double* vector = matrix.data() + k * dim;
    const double value = std::sqrt(std::max(values[k], 0.0));
    for (size_t i = 0; i < dim; ++i) {
      for (size_t j = 0; j < dim; ++j) root[i * dim + j] += value * vector[i] * vector[j];
    }
  }
  return root;
}

}  // namespace

absl::StatusOr<double> FrechetDistance(const kernels::TensorView& a, const kernels::TensorView& b) {
  TY_CHECK_EQ(a.rank(), 2);
  TY_CHECK_EQ(b.rank(), 2);
  TY_CHECK_EQ(a.dim(1), b.dim(1));
  TY_CHECK_GE(a.dim(0), 2);
  TY_CHECK_GE(b.dim(0), 2);
  TY_CHECK_GE(a.dim(1), 1);
  TY_CHECK_LE(a.dim(1), 1024);
  const auto dim = static_cast<size_t>(a.dim(1));
  TY_ASSIGN_OR_RETURN(const Moments of_a, MomentsOf(a));
  TY_ASSIGN_OR_RETURN(const Moments of_b, MomentsOf(b));
  double distance = 0;
  for (size_t i = 0; i < dim; ++i) {
    distance += (of_a.mean[i] - of_b.mean[i]) * (of_a.mean[i] - of_b.mean[i]);
    distance += of_a.covariance[i * dim + i] + of_b.covariance[i * dim + i];
  }
  const Matrix root = SquareRoot(of_a.covariance, dim);
  Matrix product = Product(Product(root, of_b.covariance, dim), root, dim);
  for (double value : SymmetricEigen(product, static_cast<int64_t>(dim))) {
    distance -= 2 * std::sqrt(std::max(value, 0.0));
  }
  return std::max(distance, 0.0);
}

}  // namespace trainyard::train
