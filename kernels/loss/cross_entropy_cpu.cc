#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/math.h"
#include "kernels/core/simd.h"
#include "kernels/loss/cross_entropy_internal.h"

namespace trainyard::kernels::internal {
namespace {

// Elements whose exponentials are summed in f32 before they join the f64 sum: vocabularies of 10^5 words would cost
// four digits otherwise.
constexpr int64_t kSumBlock = 4096;

// Partial sums and maxima of a row: twice kLanes, since GCC unrolls loops of 16 before it vectorises them and then
// fails at some of them (measured: a maximum over floats at 1.5 instead of 20 G/s).
constexpr int kRowLanes = 2 * kLanes;

template <typename T>
TY_INLINE float Max(const T* x, int64_t n) {
  float lanes[kRowLanes];
  for (int lane = 0; lane < kRowLanes; ++lane) lanes[lane] = ToFloat(x[0]);
  const int64_t whole = n / kRowLanes * kRowLanes;
  for (int64_t i = 0; i < whole; i += kRowLanes) {
    for (int lane = 0; lane < kRowLanes; ++lane) {
      const float value = ToFloat(x[i + lane]);
      lanes[lane] = lanes[lane] < value ? value : lanes[lane];
    }
  }
  for (int64_t i = whole; i < n; ++i) {
    const float value = ToFloat(x[i]);
    lanes[i - whole] = lanes[i - whole] < value ? value : lanes[i - whole];
  }
  float max = lanes[0];
  for (int lane = 1; lane < kRowLanes; ++lane) max = max < lanes[lane] ? lanes[lane] : max;
  return max;
}

template <typename T>
TY_INLINE double SumOfExp(const T* x, int64_t n, float max) {
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t end = std::min(n, begin + kSumBlock);
    const int64_t whole = begin + (end - begin) / kRowLanes * kRowLanes;
    float lanes[kRowLanes] = {};
    for (int64_t i = begin; i < whole; i += kRowLanes) {
      for (int lane = 0; lane < kRowLanes; ++lane) lanes[lane] += FastExp(ToFloat(x[i + lane]) - max);
    }
    for (int64_t i = whole; i < end; ++i) lanes[i - whole] += FastExp(ToFloat(x[i]) - max);
    float sum = 0.0f;
    for (int lane = 0; lane < kRowLanes; ++lane) sum += lanes[lane];
    total += sum;
  }
  return total;
}

template <typename T>
TY_INLINE void Gradient(T* x, int64_t n, int32_t target, float max, double sum, float grad_scale) {
  const float target_logit = ToFloat(x[target]);
  const float factor = static_cast<float>(grad_scale / sum);
  for (int64_t i = 0; i < n; ++i) x[i] = FromFloat<T>(FastExp(ToFloat(x[i]) - max) * factor);
  // From the probability, not from what was stored, so that bf16 rounds p - 1 once.
  x[target] = FromFloat<T>((static_cast<float>(FastExp(target_logit - max) / sum) - 1.0f) * grad_scale);
}

// Rows [begin, end); kBackward: dlogits in place.
template <typename T, bool kBackward>
TY_INLINE void Rows(T* logits, const int32_t* targets, const float* weights, float* losses, int64_t vocab_size,
                    float grad_scale, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    T* x = logits + row * vocab_size;
    const int32_t target = targets[row];
    if (target == kIgnoreTarget) {
      losses[row] = 0.0f;
      if (kBackward) std::fill_n(x, vocab_size, FromFloat<T>(0.0f));
      continue;
    }
    TY_CHECK_GE(target, 0);
    TY_CHECK_LT(target, vocab_size);
    const float max = Max(x, vocab_size);
    const double sum = SumOfExp(x, vocab_size, max);
    losses[row] = static_cast<float>(std::log(sum) + (static_cast<double>(max) - ToFloat(x[target])));
    float scale = grad_scale;
    if (weights != nullptr) {
      losses[row] *= weights[row];
      scale *= weights[row];
    }
    if (kBackward) Gradient(x, vocab_size, target, max, sum, scale);
  }
}

using RowsFunction = void(void* logits, const int32_t* targets, const float* weights, float* losses, int64_t vocab_size,
                          float grad_scale, int64_t begin, int64_t end);

TY_SIMD void ForwardF32(void* logits, const int32_t* targets, const float* weights, float* losses, int64_t vocab_size,
                        float grad_scale, int64_t begin, int64_t end) {
  Rows<float, false>(static_cast<float*>(logits), targets, weights, losses, vocab_size, grad_scale, begin, end);
}
TY_SIMD void ForwardBf16(void* logits, const int32_t* targets, const float* weights, float* losses, int64_t vocab_size,
                         float grad_scale, int64_t begin, int64_t end) {
  Rows<BFloat16, false>(static_cast<BFloat16*>(logits), targets, weights, losses, vocab_size, grad_scale, begin, end);
}
TY_SIMD void ForwardBackwardF32(void* logits, const int32_t* targets, const float* weights, float* losses,
                                int64_t vocab_size, float grad_scale, int64_t begin, int64_t end) {
  Rows<float, true>(static_cast<float*>(logits), targets, weights, losses, vocab_size, grad_scale, begin, end);
}
TY_SIMD void ForwardBackwardBf16(void* logits, const int32_t* targets, const float* weights, float* losses,
                                 int64_t vocab_size, float grad_scale, int64_t begin, int64_t end) {
  Rows<BFloat16, true>(static_cast<BFloat16*>(logits), targets, weights, losses, vocab_size, grad_scale, begin, end);
}

void Run(const CrossEntropyArgs& args, Stream& stream, RowsFunction* rows) {
  stream.pool().ParallelFor(args.logits.dim(0), 1, [&](int64_t begin, int64_t end) {
    rows(args.logits.data(), args.targets.as<int32_t>(), args.weights ? args.weights.as<float>() : nullptr,
         args.losses.as<float>(), args.logits.dim(1), args.grad_scale, begin, end);
  });
}

}  // namespace

void CrossEntropyForwardCpu(const CrossEntropyArgs& args, Stream& stream) {
  DispatchFloat(args.logits.dtype(), [&](auto tag) {
    constexpr bool kIsF32 = std::is_same_v<typename decltype(tag)::type, float>;
    Run(args, stream, kIsF32 ? ForwardF32 : ForwardBf16);
  });
}

void CrossEntropyForwardBackwardCpu(const CrossEntropyArgs& args, Stream& stream) {
  DispatchFloat(args.logits.dtype(), [&](auto tag) {
    constexpr bool kIsF32 = std::is_same_v<typename decltype(tag)::type, float>;
    Run(args, stream, kIsF32 ? ForwardBackwardF32 : ForwardBackwardBf16);
  });
}

}  // namespace trainyard::kernels::internal
