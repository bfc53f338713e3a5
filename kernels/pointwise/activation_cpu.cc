#include <type_traits>

#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/pointwise/activation_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kGrain = 16384;  // elements a hand-out

template <typename T, typename Function>
TY_INLINE void ForwardLoop(const Function& f, const T* x, T* y, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<T>(f.Value(ToFloat(x[i])));
}

template <typename T, typename Function>
TY_INLINE void BackwardLoop(const Function& f, const T* y, const T* dy, T* dx, int64_t count, bool accumulate) {
  if (accumulate) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      dx[i] = FromFloat<T>(ToFloat(dx[i]) + f.Slope(ToFloat(y[i])) * ToFloat(dy[i]));
    }
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) dx[i] = FromFloat<T>(f.Slope(ToFloat(y[i])) * ToFloat(dy[i]));
  }
}

// Overloads by dtype and function: target clones cannot be templates.
TY_SIMD void Forward(LeakyRelu f, const float* x, float* y, int64_t count) {
  ForwardLoop(f, x, y, count);
}
TY_SIMD void Forward(LeakyRelu f, const BFloat16* x, BFloat16* y, int64_t count) {
  ForwardLoop(f, x, y, count);
}
TY_SIMD void Forward(Tanh f, const float* x, float* y, int64_t count) {
  ForwardLoop(f, x, y, count);
}
TY_SIMD void Forward(Tanh f, const BFloat16* x, BFloat16* y, int64_t count) {
  ForwardLoop(f, x, y, count);
}
TY_SIMD void Backward(LeakyRelu f, const float* y, const float* dy, float* dx, int64_t count, bool accumulate) {
  BackwardLoop(f, y, dy, dx, count, accumulate);
}
TY_SIMD void Backward(LeakyRelu f, const BFloat16* y, const BFloat16* dy, BFloat16* dx, int64_t count,
                      bool accumulate) {
  BackwardLoop(f, y, dy, dx, count, accumulate);
}
TY_SIMD void Backward(Tanh f, const float* y, const float* dy, float* dx, int64_t count, bool accumulate) {
  BackwardLoop(f, y, dy, dx, count, accumulate);
}
TY_SIMD void Backward(Tanh f, const BFloat16* y, const BFloat16* dy, BFloat16* dx, int64_t count, bool accumulate) {
  BackwardLoop(f, y, dy, dx, count, accumulate);
}

template <typename Function>
void RunForward(const Function& f, const TensorView& x, const TensorView& y, Stream& stream) {
  DispatchFloat(y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    stream.pool().ParallelFor(y.size(), kGrain, [&](int64_t begin, int64_t end) {
      Forward(f, x.as<T>() + begin, y.as<T>() + begin, end - begin);
    });
  });
}

template <typename Function, typename Args>
void RunBackward(const Function& f, const Args& args, Stream& stream) {
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    stream.pool().ParallelFor(args.y.size(), kGrain, [&](int64_t begin, int64_t end) {
      Backward(f, args.y.template as<T>() + begin, args.dy.template as<T>() + begin, args.dx.template as<T>() + begin,
               end - begin, args.accumulate);
    });
  });
}

}  // namespace

void LeakyReluForwardCpu(const LeakyReluForwardArgs& args, Stream& stream) {
  RunForward(LeakyRelu{args.slope}, args.x, args.y, stream);
}

void LeakyReluBackwardCpu(const LeakyReluBackwardArgs& args, Stream& stream) {
  RunBackward(LeakyRelu{args.slope}, args, stream);
}

void TanhForwardCpu(const TanhForwardArgs& args, Stream& stream) {
  RunForward(Tanh{}, args.x, args.y, stream);
}

void TanhBackwardCpu(const TanhBackwardArgs& args, Stream& stream) {
  RunBackward(Tanh{}, args, stream);
}

}  // namespace trainyard::kernels::internal
