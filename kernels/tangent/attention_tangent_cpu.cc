#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/core/math.h"
#include "kernels/linalg/dense.h"
#include "kernels/tangent/tangent_ops_internal.h"

namespace trainyard::kernels::internal {
namespace {

// Query rows whose scores exist at a time.
constexpr int64_t kBlock = 64;

template <typename T>
TY_INLINE T Exp(T x) {
  if constexpr (std::is_same_v<T, float>) {
    return FastExp(x);
  } else {
    return std::exp(x);
  }
}

// One head's view of a packed part.
template <typename T>
struct Head {
  T* data;
  int64_t stride;
};

// Rows of scores become weights; key c of row r exists if c <= q_begin + r, others get weight 0.
template <typename T>
void Softmax(T* scores, int64_t rows, int64_t keys, int64_t q_begin) {
  for (int64_t r = 0; r < rows; ++r) {
    T* const s = scores + r * keys;
    const int64_t seen = q_begin + r + 1;
    T max = s[0];
    for (int64_t c = 1; c < seen; ++c) max = std::max(max, s[c]);
    T sum = 0;
    for (int64_t c = 0; c < seen; ++c) {
      s[c] = Exp(s[c] - max);
      sum += s[c];
    }
    for (int64_t c = 0; c < seen; ++c) s[c] /= sum;
    std::fill(s + seen, s + keys, T{0});
  }
}

// z. becomes P. = P (z. - sum P z.).
template <typename T>
void SoftmaxTangent(const T* weights, T* dots, int64_t rows, int64_t keys) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* const p = weights + r * keys;
    T* const d = dots + r * keys;
    T mean = 0;
    for (int64_t c = 0; c < keys; ++c) mean += p[c] * d[c];
    for (int64_t c = 0; c < keys; ++c) d[c] = p[c] * (d[c] - mean);
  }
}

}  // namespace

template <typename T>
void AttentionTangentOnHost(const AttentionTangentArgs<T>& args) {
  const int64_t width = args.head_dim, rows = args.qkv.rows;
  const T scale = 1 / std::sqrt(static_cast<T>(width));
  std::vector<T> weights(static_cast<size_t>(kBlock * rows)), dots(weights.size());
  const auto head = [&](int64_t part, int64_t number) {
    return Head<T>{args.qkv.data + part * args.qkv.part_size() + number * width, args.qkv.cols};
  };
  // c (q rows, keys) = alpha q k^T + beta c.
  const auto scores = [&](const Head<T>& q, const Head<T>& k, int64_t q_begin, int64_t count, int64_t keys, T beta,
                          T* out) {
    Product<T>({.transpose_b = true,
                .m = count,
                .n = keys,
                .k = width,
                .alpha = scale,
                .a = q.data + q_begin * q.stride,
                .lda = q.stride,
                .b = k.data,
                .ldb = k.stride,
                .beta = beta,
                .c = out,
                .ldc = keys});
  };
  const auto sum_values = [&](const T* p, const Head<T>& v, int64_t q_begin, int64_t count, int64_t keys, T beta,
                              T* out) {
    Product<T>({.m = count,
                .n = width,
                .k = keys,
                .a = p,
                .lda = keys,
                .b = v.data,
                .ldb = v.stride,
                .beta = beta,
                .c = out + q_begin * args.o.cols,
                .ldc = args.o.cols});
  };
  for (int64_t h = 0; h < args.q_heads; ++h) {
    const int64_t kv = args.kv_of_head != nullptr ? args.kv_of_head[h] : h / (args.q_heads / args.kv_heads);
    const int64_t k_head = args.q_heads + kv, v_head = args.q_heads + args.kv_heads + kv;
    for (int64_t q_begin = 0; q_begin < rows; q_begin += kBlock) {
      const int64_t count = std::min(kBlock, rows - q_begin), keys = q_begin + count;
      scores(head(0, h), head(0, k_head), q_begin, count, keys, 0, weights.data());
      Softmax(weights.data(), count, keys, q_begin);
      sum_values(weights.data(), head(0, v_head), q_begin, count, keys, 0, args.o.value() + h * width);
      for (int64_t t = 0; t < args.qkv.tangents; ++t) {
        scores(head(t + 1, h), head(0, k_head), q_begin, count, keys, 0, dots.data());
        scores(head(0, h), head(t + 1, k_head), q_begin, count, keys, 1, dots.data());
        SoftmaxTangent(weights.data(), dots.data(), count, keys);
        T* const out = args.o.tangent(t) + h * width;
        sum_values(dots.data(), head(0, v_head), q_begin, count, keys, 0, out);
        sum_values(weights.data(), head(t + 1, v_head), q_begin, count, keys, 1, out);
      }
    }
  }
}

template void AttentionTangentOnHost<float>(const AttentionTangentArgs<float>&);
template void AttentionTangentOnHost<double>(const AttentionTangentArgs<double>&);

void AttentionTangentCpu(const AttentionTangentArgs<float>& args, Stream& /*stream*/) {
  AttentionTangentOnHost(args);
}

}  // namespace trainyard::kernels::internal
