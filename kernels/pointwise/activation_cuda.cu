#include "kernels/core/dispatch.h"
#include "kernels/core/map.h"
#include "kernels/pointwise/activation_internal.h"

namespace trainyard::kernels::internal {
namespace {

template <typename Function>
struct ForwardOf {
  Function f;
  __device__ float operator()(float x) const { return f.Value(x); }
};
template <typename Function>
struct BackwardOf {
  Function f;
  __device__ float operator()(float y, float dy) const { return f.Slope(y) * dy; }
  __device__ float operator()(float y, float dy, float dx) const { return dx + f.Slope(y) * dy; }
};

template <typename Function>
void RunForward(const Function& f, const TensorView& x, const TensorView& y, Stream& stream) {
  DispatchFloat(y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Map(stream, ForwardOf<Function>{f}, y.size(), y.as<T>(), x.as<T>());
  });
}

template <typename Function, typename Args>
void RunBackward(const Function& f, const Args& args, Stream& stream) {
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* const y = args.y.template as<T>();
    const T* const dy = args.dy.template as<T>();
    T* const dx = args.dx.template as<T>();
    if (args.accumulate) {
      Map(stream, BackwardOf<Function>{f}, args.y.size(), dx, y, dy, static_cast<const T*>(dx));
    } else {
      Map(stream, BackwardOf<Function>{f}, args.y.size(), dx, y, dy);
    }
  });
}

}  // namespace

void LeakyReluForwardCuda(const LeakyReluForwardArgs& args, Stream& stream) {
  RunForward(LeakyRelu{args.slope}, args.x, args.y, stream);
}

void LeakyReluBackwardCuda(const LeakyReluBackwardArgs& args, Stream& stream) {
  RunBackward(LeakyRelu{args.slope}, args, stream);
}

void TanhForwardCuda(const TanhForwardArgs& args, Stream& stream) {
  RunForward(Tanh{}, args.x, args.y, stream);
}

void TanhBackwardCuda(const TanhBackwardArgs& args, Stream& stream) {
  RunBackward(Tanh{}, args, stream);
}

}  // namespace trainyard::kernels::internal
