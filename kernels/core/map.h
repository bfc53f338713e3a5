// For <op>_cuda.cu: elementwise kernels.
//
//   struct Scaled {
//     float scale;
//     __device__ float operator()(float x) const { return scale * x; }
//   };
//   Map(stream, Scaled{args.scale}, count, y, x);   // y[i] = FromFloat(f(ToFloat(x[i])))
#pragma once

#include <cstdint>

#include "kernels/core/launch.h"
#include "kernels/core/vec.h"

namespace trainyard::kernels {

template <int kWidth, typename F, typename Out, typename... In>
__global__ void MapKernel(F f, int64_t count, Out* out, const In*... in) {
  const int64_t vectors = count / kWidth;
  for (int64_t v = GlobalThread(); v < vectors; v += GlobalThreads()) {
    // All inputs of a vector are read before it is written: `out` may be one of them.
    Vec<float, kWidth> result;
    const auto apply = [&](const auto&... values) {
      TY_UNROLL
      for (int e = 0; e < kWidth; ++e) result[e] = f(values[e]...);
    };
    apply(Widen(LoadVec<kWidth>(in + v * kWidth))...);
    StoreVec(out + v * kWidth, Narrow<Out>(result));
  }
  const int64_t i = vectors * kWidth + GlobalThread();
  if (kWidth > 1 && i < count) out[i] = FromFloat<Out>(f(ToFloat(in[i])...));
}

// out[i] = f(in[i] ...), i < count, in f32. `out` may alias inputs of its type exactly. F: small, copied to the device.
template <typename F, typename Out, typename... In>
void Map(Stream& stream, const F& f, int64_t count, Out* out, const In*... in) {
  if (count == 0) return;
  constexpr int kWidth = kVecWidth<Out, In...>;
  const bool aligned = AllVecAligned(out, in...);
  void (*const kernel)(F, int64_t, Out*, const In*...) =
      aligned ? MapKernel<kWidth, F, Out, In...> : MapKernel<1, F, Out, In...>;
  Launch(stream, ElementwiseGrid(count, aligned ? kWidth : 1), kernel, f, count, out, in...);
}

}  // namespace trainyard::kernels
