#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "base/check.h"
#include "kernels/core/math.h"
#include "kernels/linalg/dense.h"
#include "kernels/tangent/tangent_ops_internal.h"

namespace trainyard::kernels::internal {
namespace {

template <typename T>
TY_INLINE T Sigmoid(T x) {
  if constexpr (std::is_same_v<T, float>) {
    return FastSigmoid(x);
  } else {
    return 1 / (1 + std::exp(-x));
  }
}

// sum of a[i] b[i] in kLanes partial sums, so that the loop vectorises and its order is fixed.
template <typename T>
TY_INLINE T Dot(const T* a, const T* b, int64_t count) {
  T lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] += a[i] * b[i];
  T sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

}  // namespace

template <typename T>
void EmbeddingTangentOnHost(const EmbeddingTangentArgs<T>& args) {
  const int64_t cols = args.y.cols;
  for (int64_t row = 0; row < args.y.rows; ++row) {
    const int64_t begin = int64_t{args.tokens[row]} * cols;
    std::copy_n(args.table + begin, cols, args.y.value() + row * cols);
    for (int64_t k = 0; k < args.y.tangents; ++k) {
      DirectionKey key = args.key;
      key.direction = static_cast<uint32_t>(k);
      FillDirection(key, begin, cols, args.y.tangent(k) + row * cols);
    }
  }
}

template <typename T>
void LinearTangentOnHost(const LinearTangentArgs<T>& args) {
  const int64_t in = args.x.cols, out = args.y.cols, rows = args.y.rows;
  // The primal's product has one shape whatever the number of tangents, so that it has the same bits.
  for (int64_t part = 0; part <= args.y.tangents; ++part) {
    Product<T>({.transpose_b = true,
                .m = rows,
                .n = out,
                .k = in,
                .a = args.x.data + part * args.x.part_size(),
                .lda = in,
                .b = args.w,
                .ldb = in,
                .c = args.y.data + part * args.y.part_size(),
                .ldc = out});
    if (args.bias == nullptr) continue;
    const T* const bias = part == 0 ? args.bias : args.bias_dots + (part - 1) * out;
    for (int64_t row = 0; row < rows; ++row) {
      T* const y = args.y.data + part * args.y.part_size() + row * out;
      for (int64_t c = 0; c < out; ++c) y[c] += bias[c];
    }
  }
}

template <typename T>
void AddWeightTangentOnHost(const WeightTangentArgs<T>& args) {
  const Dual<T>& x = args.x;
  Product<T>({.transpose_b = true,
              .m = x.rows,
              .n = args.count,
              .k = x.cols,
              .a = x.value(),
              .lda = x.cols,
              .b = args.panel,
              .ldb = x.cols,
              .beta = 1,
              .c = args.y.tangent(args.tangent) + args.row_begin,
              .ldc = args.y.cols});
}

template <typename T>
void RmsNormTangentOnHost(const RmsNormTangentArgs<T>& args) {
  const int64_t cols = args.x.cols;
  for (int64_t row = 0; row < args.x.rows; ++row) {
    const T* const x = args.x.value() + row * cols;
    const T r = std::sqrt(Dot(x, x, cols) / static_cast<T>(cols) + static_cast<T>(args.eps));
    const T inverse = 1 / r;
    for (int64_t k = 0; k < args.x.tangents; ++k) {
      const T* const x_dot = args.x.tangent(k) + row * cols;
      const T* const w_dot = args.w_dots + k * cols;
      T* const y_dot = args.y.tangent(k) + row * cols;
      const T r_dot = Dot(x, x_dot, cols) / static_cast<T>(cols) * inverse;
      const T shrink = r_dot * inverse * inverse;
      for (int64_t c = 0; c < cols; ++c) {
        y_dot[c] = RmsNormTangentValue(x[c], x_dot[c], args.w[c], w_dot[c], inverse, shrink);
      }
    }
    T* const y = args.y.value() + row * cols;
    for (int64_t c = 0; c < cols; ++c) y[c] = x[c] * inverse * args.w[c];
  }
}

template <typename T>
void SwigluTangentOnHost(const Dual<T>& gate_up, const Dual<T>& y) {
  const int64_t width = y.cols;
  for (int64_t row = 0; row < y.rows; ++row) {
    const T* const gate = gate_up.value() + row * 2 * width;
    const T* const up = gate + width;
    for (int64_t k = 0; k < y.tangents; ++k) {
      const T* const gate_dot = gate_up.tangent(k) + row * 2 * width;
      const T* const up_dot = gate_dot + width;
      T* const y_dot = y.tangent(k) + row * width;
      for (int64_t c = 0; c < width; ++c) {
        y_dot[c] = SwigluTangentValue(gate[c], up[c], gate_dot[c], up_dot[c], Sigmoid(gate[c]));
      }
    }
    T* const out = y.value() + row * width;
    for (int64_t c = 0; c < width; ++c) out[c] = up[c] * gate[c] * Sigmoid(gate[c]);
  }
}

template <typename T>
void AddDualOnHost(const Dual<T>& x, const Dual<T>& y) {
  for (int64_t i = 0; i < x.size(); ++i) y.data[i] += x.data[i];
}

template <typename T>
void RopeTangentOnHost(const RopeTangentArgs<T>& args) {
  const int64_t half = args.head_dim / 2;
  for (int64_t part = 0; part <= args.qkv.tangents; ++part) {
    for (int64_t row = 0; row < args.qkv.rows; ++row) {
      const float* const pairs = args.table + row * half * 2;
      T* const heads = args.qkv.data + part * args.qkv.part_size() + row * args.qkv.cols;
      for (int64_t head = 0; head < args.turned_heads; ++head) {
        T* const first = heads + head * args.head_dim;
        T* const second = first + half;
        for (int64_t i = 0; i < half; ++i) {
          const T cosine = static_cast<T>(pairs[2 * i]), sine = static_cast<T>(pairs[2 * i + 1]);
          const T a = first[i], b = second[i];
          first[i] = a * cosine - b * sine;
          second[i] = b * cosine + a * sine;
        }
      }
    }
  }
}

#define TY_INSTANTIATE(T)                                                  \
  template void EmbeddingTangentOnHost<T>(const EmbeddingTangentArgs<T>&); \
  template void LinearTangentOnHost<T>(const LinearTangentArgs<T>&);       \
  template void AddWeightTangentOnHost<T>(const WeightTangentArgs<T>&);    \
  template void RmsNormTangentOnHost<T>(const RmsNormTangentArgs<T>&);     \
  template void SwigluTangentOnHost<T>(const Dual<T>&, const Dual<T>&);    \
  template void AddDualOnHost<T>(const Dual<T>&, const Dual<T>&);          \
  template void RopeTangentOnHost<T>(const RopeTangentArgs<T>&)
TY_INSTANTIATE(float);
TY_INSTANTIATE(double);
#undef TY_INSTANTIATE

void EmbeddingTangentCpu(const EmbeddingTangentArgs<float>& args, Stream& /*stream*/) {
  EmbeddingTangentOnHost(args);
}
void LinearTangentCpu(const LinearTangentArgs<float>& args, Stream& /*stream*/) {
  LinearTangentOnHost(args);
}
void AddWeightTangentCpu(const WeightTangentArgs<float>& args, Stream& /*stream*/) {
  AddWeightTangentOnHost(args);
}
void RmsNormTangentCpu(const RmsNormTangentArgs<float>& args, Stream& /*stream*/) {
  RmsNormTangentOnHost(args);
}
void SwigluTangentCpu(const Dual<float>& gate_up, const Dual<float>& y, Stream& /*stream*/) {
  SwigluTangentOnHost(gate_up, y);
}
void AddDualCpu(const Dual<float>& x, const Dual<float>& y, Stream& /*stream*/) {
  AddDualOnHost(x, y);
}
void RopeTangentCpu(const RopeTangentArgs<float>& args, Stream& /*stream*/) {
  RopeTangentOnHost(args);
}

}  // namespace trainyard::kernels::internal
