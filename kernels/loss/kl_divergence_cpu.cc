#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/core/dispatch.h"
#include "kernels/core/math.h"
#include "kernels/core/simd.h"
#include "kernels/loss/kl_divergence_internal.h"

namespace trainyard::kernels::internal {
namespace {

// Terms that are summed in f32 lanes before they join the f64 sum.
constexpr int64_t kKlBlock = 4096;
constexpr int kKlLanes = 2 * kLanes;

TY_INLINE float KlMax(const float* x, int64_t n) {
  float max = x[0];
  for (int64_t i = 1; i < n; ++i) max = max < x[i] ? x[i] : max;
  return max;
}

TY_INLINE double KlSumOfExp(const float* x, int64_t n, float max) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kKlBlock) {
    const int64_t end = std::min(n, begin + kKlBlock);
    const int64_t whole = begin + (end - begin) / kKlLanes * kKlLanes;
    float lanes[kKlLanes] = {};
    for (int64_t i = begin; i < whole; i += kKlLanes) {
      for (int lane = 0; lane < kKlLanes; ++lane) lanes[lane] += FastExp(x[i + lane] - max);
    }
    for (int64_t i = whole; i < end; ++i) lanes[i - whole] += FastExp(x[i] - max);
    for (int lane = 0; lane < kKlLanes; ++lane) total += lanes[lane];
  }
  return total;
}

TY_SIMD double KlSum(const float* p, const float* q, int64_t n, float p_max, float shift) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kKlBlock) {
    const int64_t end = std::min(n, begin + kKlBlock);
    const int64_t whole = begin + (end - begin) / kKlLanes * kKlLanes;
    float lanes[kKlLanes] = {};
    for (int64_t i = begin; i < whole; i += kKlLanes) {
      for (int lane = 0; lane < kKlLanes; ++lane) lanes[lane] += KlTerm(p[i + lane], q[i + lane], p_max, shift);
    }
    for (int64_t i = whole; i < end; ++i) lanes[i - whole] += KlTerm(p[i], q[i], p_max, shift);
    for (int lane = 0; lane < kKlLanes; ++lane) total += lanes[lane];
  }
  return total;
}

TY_SIMD double KlLogSumExp(const float* x, int64_t n, float max) {
  return std::log(KlSumOfExp(x, n, max)) + max;
}

float RowDivergence(const float* p, const float* q, int64_t n) {
  const float p_max = KlMax(p, n), q_max = KlMax(q, n);
  const double p_lse = KlLogSumExp(p, n, p_max), q_lse = KlLogSumExp(q, n, q_max);
  // A NaN anywhere reaches a sum; an infinite maximum is a NaN after the subtraction.
  if (!std::isfinite(p_lse) || !std::isfinite(q_lse)) return std::nanf("");
  const double sum = KlSum(p, q, n, p_max, static_cast<float>(p_lse - q_lse));
  return static_cast<float>(sum / std::exp(p_lse - p_max));
}

template <typename T>
void ToFloats(const T* x, int64_t n, std::vector<float>* out) {
  out->resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) (*out)[static_cast<size_t>(i)] = ToFloat(x[i]);
}

void LoadRow(const TensorView& logits, int64_t row, std::vector<float>* out) {
  const int64_t n = logits.dim(1);
  DispatchFloat(logits.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    ToFloats(logits.as<T>() + row * n, n, out);
  });
}

// The `k` words with the largest p, in ascending order.
void SelectTop(int64_t k, std::vector<int32_t>* order, std::vector<float>* p, std::vector<float>* q) {
  order->resize(p->size());
  std::iota(order->begin(), order->end(), 0);
  const auto before = [p](int32_t a, int32_t b) {
    const float x = (*p)[static_cast<size_t>(a)], y = (*p)[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  std::nth_element(order->begin(), order->begin() + (k - 1), order->end(), before);
  std::sort(order->begin(), order->begin() + k);
  for (int64_t i = 0; i < k; ++i) {
    const auto from = static_cast<size_t>((*order)[static_cast<size_t>(i)]);
    (*p)[static_cast<size_t>(i)] = (*p)[from];
    (*q)[static_cast<size_t>(i)] = (*q)[from];
  }
}

bool HasNan(const std::vector<float>& values) {
  return std::any_of(values.begin(), values.end(), [](float value) { return std::isnan(value); });
}

}  // namespace

void KlDivergenceCpu(const KlDivergenceArgs& args, Stream& stream) {
  const int64_t vocab_size = args.p_logits.dim(1);
  float* const divergences = args.divergences.as<float>();
  stream.pool().ParallelFor(args.p_logits.dim(0), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> p, q;
    std::vector<int32_t> order;
    for (int64_t row = begin; row < end; ++row) {
      LoadRow(args.p_logits, row, &p);
      LoadRow(args.q_logits, row, &q);
      if (HasNan(p) || HasNan(q)) {  // which no order would put anywhere
        divergences[row] = std::nanf("");
        continue;
      }
      int64_t n = vocab_size;
      if (args.top_k > 0 && args.top_k < vocab_size) {
        n = args.top_k;
        SelectTop(n, &order, &p, &q);
      }
      divergences[row] = RowDivergence(p.data(), q.data(), n);
    }
  });
}

}  // namespace trainyard::kernels::internal
