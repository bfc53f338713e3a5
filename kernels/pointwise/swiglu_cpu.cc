#include <algorithm>
#include <type_traits>

#include "kernels/core/dispatch.h"
#include "kernels/core/math.h"
#include "kernels/core/simd.h"
#include "kernels/pointwise/swiglu_internal.h"
#include "kernels/quant/largest_magnitude.h"

namespace trainyard::kernels::internal {
namespace {

template <typename T>
TY_INLINE void ForwardRange(const T* gate_up, T* y, int64_t width, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* gates = gate_up + 2 * r * width;
    const T* ups = gates + width;
    T* out = y + r * width;
#pragma GCC ivdep
    for (int64_t d = 0; d < width; ++d) {
      const float gate = ToFloat(gates[d]);
      out[d] = FromFloat<T>(SwigluValue(gate, ToFloat(ups[d]), FastSigmoid(gate)));
    }
  }
}

TY_SIMD void ForwardRangeF32(const float* gate_up, float* y, int64_t width, int64_t begin, int64_t end) {
  ForwardRange(gate_up, y, width, begin, end);
}
TY_SIMD void ForwardRangeBF16(const BFloat16* gate_up, BFloat16* y, int64_t width, int64_t begin, int64_t end) {
  ForwardRange(gate_up, y, width, begin, end);
}

template <typename T>
TY_INLINE void BackwardRange(const T* gate_up, const T* dy, T* dgate_up, int64_t width, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* gates = gate_up + 2 * r * width;
    const T* ups = gates + width;
    const T* upstream = dy + r * width;
    T* dgates = dgate_up + 2 * r * width;
    T* dups = dgates + width;
    // Exact aliasing is safe: everything at d is read before anything at d is written.
#pragma GCC ivdep
    for (int64_t d = 0; d < width; ++d) {
      const float gate = ToFloat(gates[d]);
      const float up = ToFloat(ups[d]);
      const float g = ToFloat(upstream[d]);
      const float s = FastSigmoid(gate);
      dgates[d] = FromFloat<T>(SwigluGateGradient(gate, up, g, s));
      dups[d] = FromFloat<T>(SwigluUpGradient(gate, g, s));
    }
  }
}

TY_SIMD void BackwardRangeF32(const float* gate_up, const float* dy, float* dgate_up, int64_t width, int64_t begin,
                              int64_t end) {
  BackwardRange(gate_up, dy, dgate_up, width, begin, end);
}
TY_SIMD void BackwardRangeBF16(const BFloat16* gate_up, const BFloat16* dy, BFloat16* dgate_up, int64_t width,
                               int64_t begin, int64_t end) {
  BackwardRange(gate_up, dy, dgate_up, width, begin, end);
}

// About 16k elements a hand-out.
int64_t RowGrain(int64_t width) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1));
}

}  // namespace

void SwigluForwardCpu(const SwigluForwardArgs& args, Stream& stream) {
  const int64_t width = args.y.dim(1);
  LargestMagnitude largest(args.amax);
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    stream.pool().ParallelFor(args.y.dim(0), RowGrain(width), [&](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<T, float>) {
        ForwardRangeF32(args.gate_up.as<T>(), args.y.as<T>(), width, begin, end);
      } else {
        ForwardRangeBF16(args.gate_up.as<T>(), args.y.as<T>(), width, begin, end);
      }
      largest.Add(args.y, begin * width, (end - begin) * width);
    });
  });
  largest.Finish();
}

void SwigluBackwardCpu(const SwigluBackwardArgs& args, Stream& stream) {
  const int64_t width = args.dy.dim(1);
  LargestMagnitude largest(args.amax);
  DispatchFloat(args.dy.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    stream.pool().ParallelFor(args.dy.dim(0), RowGrain(width), [&](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<T, float>) {
        BackwardRangeF32(args.gate_up.as<T>(), args.dy.as<T>(), args.dgate_up.as<T>(), width, begin, end);
      } else {
        BackwardRangeBF16(args.gate_up.as<T>(), args.dy.as<T>(), args.dgate_up.as<T>(), width, begin, end);
      }
      largest.Add(args.dgate_up, 2 * begin * width, 2 * (end - begin) * width);
    });
  });
  largest.Finish();
}

}  // namespace trainyard::kernels::internal
