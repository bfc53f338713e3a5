// One linear layer with operands of its own, for tests of schemes: runs them, and has the dense layer in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"
#include "worker/linear/linear_scheme.h"

namespace trainyard::linear::testing {

using Values = std::vector<double>;

// sum (a - b)^2 / sum b^2
inline double RelativeError(const Values& a, const Values& b) {
  double error = 0;
  double square = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    square += b[i] * b[i];
  }
  return error / square;
}

// c (m, n) = sum over k of a b, with strides in elements of (row, contracted) of a and (contracted, column) of b.
struct Strides {
  int64_t outer, inner;
};
inline Values Product(const Values& a, Strides of_a, const Values& b, Strides of_b, int64_t m, int64_t n, int64_t k) {
  Values c(static_cast<size_t>(m * n), 0);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t l = 0; l < k; ++l) {
      const double left = a[static_cast<size_t>(i * of_a.outer + l * of_a.inner)];
      for (int64_t j = 0; j < n; ++j) {
        c[static_cast<size_t>(i * n + j)] += left * b[static_cast<size_t>(l * of_b.outer + j * of_b.inner)];
      }
    }
  }
  return c;
}

struct Gradients {
  Values dx, dw, db;
};

class Layer {
 public:
  Layer(int64_t rows, int64_t in, int64_t out, kernels::DType storage = kernels::DType::kF32, double scale = 1)
      : site{"layers.0.qkv", 3, rows, in, out, storage},
        x(kernels::testing::HostTensor::Normal(storage, {rows, in}, 1, scale)),
        w(kernels::testing::HostTensor::Normal(storage, {out, in}, 2, scale)),
        dy(kernels::testing::HostTensor::Normal(storage, {rows, out}, 3)),
        bias(kernels::testing::HostTensor::Normal(storage, {out}, 4)) {}

  // The first `rows` rows; all with 0. Without the bias.
  Values Forward(const LinearScheme& scheme, LinearRandom random = {}, int64_t rows = 0, int threads = 2) const {
    kernels::testing::TestStream stream(threads);
    const int64_t count = rows == 0 ? site.rows : rows;
    const auto workspace = Workspace(scheme);
    const auto y = kernels::testing::HostTensor::Filled(site.storage, {count, site.out}, 9);
    scheme.Forward({site, random}, {.x = x.view().Slice(0, count), .w = w, .y = y, .workspace = workspace}, stream);
    return y.ToDoubles();
  }

  // Of `times` calls with one key, each added to the one before.
  Gradients Backward(const LinearScheme& scheme, LinearRandom random = {}, int times = 1, int threads = 2) const {
    kernels::testing::TestStream stream(threads);
    const auto workspace = Workspace(scheme);
    const auto dx = kernels::testing::HostTensor::Filled(site.storage, {site.rows, site.in}, 9);
    const auto dw = kernels::testing::HostTensor::Filled(kernels::DType::kF32, {site.out, site.in}, 9);
    const auto db = kernels::testing::HostTensor::Filled(kernels::DType::kF32, {site.out}, 9);
    for (int i = 0; i < times; ++i) {
      scheme.Backward(
          {site, random},
          {.dy = dy, .x = x, .w = w, .dx = dx, .dw = dw, .db = db, .accumulate = i > 0, .workspace = workspace},
          stream);
    }
    return {dx.ToDoubles(), dw.ToDoubles(), db.ToDoubles()};
  }

  // The mean over steps 0 .. calls - 1.
  Gradients MeanBackward(const LinearScheme& scheme, int calls) const {
    Gradients mean;
    for (int call = 0; call < calls; ++call) {
      const Gradients one = Backward(scheme, {.seed = 7, .step = call});
      mean.dx.resize(one.dx.size());
      mean.dw.resize(one.dw.size());
      for (size_t i = 0; i < one.dx.size(); ++i) mean.dx[i] += one.dx[i] / calls;
      for (size_t i = 0; i < one.dw.size(); ++i) mean.dw[i] += one.dw[i] / calls;
    }
    return mean;
  }

  // The dense layer in double, from operands x and w or what they have been made.
  Values DenseForward(const Values& of_x, const Values& of_w) const {
    return Product(of_x, {site.in, 1}, of_w, {1, site.in}, site.rows, site.out, site.in);
  }
  Values DenseForward() const { return DenseForward(x.ToDoubles(), w.ToDoubles()); }
  Gradients DenseBackward(const Values& of_x, const Values& of_w) const {
    const Values g = dy.ToDoubles();
    Gradients dense;
    dense.dx = Product(g, {site.out, 1}, of_w, {site.in, 1}, site.rows, site.in, site.out);
    dense.dw = Product(g, {1, site.out}, of_x, {site.in, 1}, site.out, site.in, site.rows);
    dense.db.resize(static_cast<size_t>(site.out));
    for (size_t i = 0; i < g.size(); ++i) dense.db[i % dense.db.size()] += g[i];
    return dense;
  }
  Gradients DenseBackward() const { return DenseBackward(x.ToDoubles(), w.ToDoubles()); }

  const LinearSite site;
  const kernels::testing::HostTensor x, w, dy, bias;

 private:
  kernels::testing::HostTensor Workspace(const LinearScheme& scheme) const {
    return kernels::testing::HostTensor(kernels::DType::kU8, {scheme.WorkspaceBytes(site)});
  }
};

// All bits of a forward and of two backward calls, for tests of equality.
inline Values AllResults(const Layer& layer, const LinearScheme& scheme, LinearRandom random, int threads) {
  Values all = layer.Forward(scheme, random, 0, threads);
  const Gradients gradients = layer.Backward(scheme, random, 2, threads);
  for (const Values* part : {&gradients.dx, &gradients.dw, &gradients.db}) {
    all.insert(all.end(), part->begin(), part->end());
  }
  return all;
}

}  // namespace trainyard::linear::testing
