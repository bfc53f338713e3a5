#include "worker/train/gan_metrics/sliced_wasserstein.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/philox.h"
#include "kernels/gemm/gemm.h"

namespace trainyard::train {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

// (projections, dim), rows of length 1.
std::vector<float> Directions(int projections, int64_t dim, uint64_t seed) {
  std::vector<float> directions(static_cast<size_t>(projections * dim));
  for (int p = 0; p < projections; ++p) {
    const kernels::PhiloxKey key = {
        .seed = seed, .purpose = kernels::kRandomProjection, .tensor = static_cast<uint32_t>(p)};
    float* row = directions.data() + p * dim;
    double squares = 0;
    for (int64_t i = 0; i < dim; ++i) {
      row[i] = kernels::RandomNormal(key, static_cast<uint64_t>(i));
      squares += static_cast<double>(row[i]) * static_cast<double>(row[i]);
    }
    const double scale = 1 / std::sqrt(squares);
    for (int64_t i = 0; i < dim; ++i) row[i] = static_cast<float>(static_cast<double>(row[i]) * scale);
  }
  return directions;
}

// (projections, points), each row sorted; false if a value is not finite.
bool ProjectAndSort(std::vector<float>& directions, const TensorView& points, int projections, Stream& stream,
                    std::vector<float>* rows) {
  const int64_t count = points.dim(0);
  const int64_t dim = points.size() / count;
  rows->resize(static_cast<size_t>(projections * count));
  Gemm({.a = TensorView(directions.data(), DType::kF32, {projections, dim}),
        .b = points.Reshape({count, dim}),
        .c = TensorView(rows->data(), DType::kF32, {projections, count}),
        .transpose_b = true},
       stream);
  if (!std::all_of(rows->begin(), rows->end(), [](float value) { return std::isfinite(value); })) return false;
  stream.pool().ParallelFor(projections, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) std::sort(rows->data() + p * count, rows->data() + (p + 1) * count);
  });
  return true;
}

// W_2^2 of two sorted sets of points of equal weight: the i-th n-th of the one goes to where its quantiles are in the
// other. Masses count in units of 1 / (n m).
double SquaredWasserstein(const float* a, int64_t n, const float* b, int64_t m) {
  double sum = 0;
  int64_t left_of_a = m;
  int64_t left_of_b = n;
  for (int64_t i = 0, j = 0; i < n && j < m;) {
    const int64_t mass = std::min(left_of_a, left_of_b);
    const double distance = static_cast<double>(a[i]) - static_cast<double>(b[j]);
    sum += static_cast<double>(mass) * distance * distance;
    left_of_a -= mass;
    left_of_b -= mass;
    if (left_of_a == 0) {
      left_of_a = m;
      ++i;
    }
    if (left_of_b == 0) {
      left_of_b = n;
      ++j;
    }
  }
  return sum / (static_cast<double>(n) * static_cast<double>(m));
}

}  // namespace

double SlicedWasserstein(const TensorView& a, const TensorView& b, int projections, uint64_t seed, Stream& stream) {
  if (stream.device() != kernels::Device::kCpu) {  // most of it is sorting, which the host does
    kernels::WaitForDevice(stream);
    Stream host(stream.threads());
    return SlicedWasserstein(a, b, projections, seed, host);
  }
  TY_CHECK_GE(projections, 1);
  const int64_t n = a.dim(0);
  const int64_t m = b.dim(0);
  TY_CHECK_GE(n, 1);
  TY_CHECK_GE(m, 1);
  TY_CHECK_EQ(a.size() / n, b.size() / m);
  std::vector<float> directions = Directions(projections, a.size() / n, seed);
  std::vector<float> rows_a, rows_b;
  if (!ProjectAndSort(directions, a, projections, stream, &rows_a) ||
      !ProjectAndSort(directions, b, projections, stream, &rows_b)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  double sum = 0;
  for (int p = 0; p < projections; ++p) sum += SquaredWasserstein(rows_a.data() + p * n, n, rows_b.data() + p * m, m);
  return std::sqrt(sum / projections);
}

}  // namespace trainyard::train
