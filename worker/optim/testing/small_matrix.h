// Dense matrices in double, for references in tests: the formulas as they are written.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "kernels/core/tensor.h"

namespace trainyard::optim::testing {

struct SmallMatrix {
  SmallMatrix(int64_t rows, int64_t cols) : rows(rows), cols(cols), values(static_cast<size_t>(rows * cols)) {}
  // Of an f32 tensor.
  SmallMatrix(const kernels::TensorView& x, int64_t rows, int64_t cols) : SmallMatrix(rows, cols) {
    TY_CHECK_EQ(x.size(), rows * cols);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(x.as<float>()[i]);
  }

  double& at(int64_t i, int64_t j) { return values[static_cast<size_t>(i * cols + j)]; }
  double at(int64_t i, int64_t j) const { return values[static_cast<size_t>(i * cols + j)]; }

  SmallMatrix Transposed() const {
    SmallMatrix result(cols, rows);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) result.at(j, i) = at(i, j);
    }
    return result;
  }
  SmallMatrix Columns(const std::vector<int64_t>& list) const {
    SmallMatrix result(rows, static_cast<int64_t>(list.size()));
    for (int64_t i = 0; i < rows; ++i) {
      for (size_t q = 0; q < list.size(); ++q) result.at(i, static_cast<int64_t>(q)) = at(i, list[q]);
    }
    return result;
  }
  double Energy() const {
    double sum = 0;
    for (const double value : values) sum += value * value;
    return sum;
  }

  int64_t rows, cols;
  std::vector<double> values;
};

inline SmallMatrix operator*(const SmallMatrix& a, const SmallMatrix& b) {
  TY_CHECK_EQ(a.cols, b.rows);
  SmallMatrix c(a.rows, b.cols);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t k = 0; k < a.cols; ++k) {
      for (int64_t j = 0; j < b.cols; ++j) c.at(i, j) += a.at(i, k) * b.at(k, j);
    }
  }
  return c;
}
// scale_a a + scale_b b.
inline SmallMatrix Sum(double scale_a, const SmallMatrix& a, double scale_b, const SmallMatrix& b) {
  SmallMatrix c = a;
  for (size_t i = 0; i < c.values.size(); ++i) c.values[i] = scale_a * a.values[i] + scale_b * b.values[i];
  return c;
}

// Columns are the DCT-II basis (kernels/transform/dct.h).
inline SmallMatrix DctVectors(int64_t n) {
  SmallMatrix p(n, n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      p.at(i, j) = std::sqrt((j == 0 ? 1.0 : 2.0) / static_cast<double>(n)) *
                   std::cos(M_PI * static_cast<double>(j * (2 * i + 1)) / static_cast<double>(2 * n));
    }
  }
  return p;
}

}  // namespace trainyard::optim::testing
