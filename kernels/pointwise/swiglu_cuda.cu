#include "kernels/core/cells.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/quick_math.h"
#include "kernels/core/vec.h"
#include "kernels/pointwise/swiglu_internal.h"
#include "kernels/quant/largest_magnitude_device.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;  // of ElementwiseGrid

template <int kWidth, typename T>
__global__ void SwigluForwardKernel(const T* gate_up, T* y, int64_t rows, int64_t width, uint32_t* amax) {
  uint32_t largest = 0;
  for (Cells at(GlobalThread(), GlobalThreads(), width / kWidth); at.row < rows; at.Next()) {
    const T* gates = gate_up + 2 * at.row * width + at.col * kWidth;
    const Vec<float, kWidth> gate = Widen(LoadVec<kWidth>(gates));
    const Vec<float, kWidth> up = Widen(LoadVec<kWidth>(gates + width));
    Vec<float, kWidth> out;
    TY_UNROLL
    for (int e = 0; e < kWidth; ++e) out[e] = SwigluValue(gate[e], up[e], QuickSigmoid(gate[e]));
    const Vec<T, kWidth> stored = Narrow<T>(out);
    StoreVec(y + at.row * width + at.col * kWidth, stored);
    largest = LargerMagnitude(stored, largest);
  }
  RaiseAmax<kThreads>(largest, amax);
}

template <int kWidth, typename T>
__global__ void SwigluBackwardKernel(const T* gate_up, const T* dy, T* dgate_up, int64_t rows, int64_t width,
                                     uint32_t* amax) {
  uint32_t largest = 0;
  for (Cells at(GlobalThread(), GlobalThreads(), width / kWidth); at.row < rows; at.Next()) {
    const int64_t first = 2 * at.row * width + at.col * kWidth;
    const Vec<float, kWidth> gate = Widen(LoadVec<kWidth>(gate_up + first));
    const Vec<float, kWidth> up = Widen(LoadVec<kWidth>(gate_up + first + width));
    const Vec<float, kWidth> upstream = Widen(LoadVec<kWidth>(dy + at.row * width + at.col * kWidth));
    Vec<float, kWidth> dgate, dup;
    TY_UNROLL
    for (int e = 0; e < kWidth; ++e) {
      const float s = QuickSigmoid(gate[e]);
      dgate[e] = SwigluGateGradient(gate[e], up[e], upstream[e], s);
      dup[e] = SwigluUpGradient(gate[e], upstream[e], s);
    }
    const Vec<T, kWidth> stored_gate = Narrow<T>(dgate), stored_up = Narrow<T>(dup);
    StoreVec(dgate_up + first, stored_gate);
    StoreVec(dgate_up + first + width, stored_up);
    largest = LargerMagnitude(stored_up, LargerMagnitude(stored_gate, largest));
  }
  RaiseAmax<kThreads>(largest, amax);
}

}  // namespace

void SwigluForwardCuda(const SwigluForwardArgs& args, Stream& stream) {
  const int64_t rows = args.y.dim(0);
  const int64_t width = args.y.dim(1);
  uint32_t* const amax = StartAmax(args.amax, stream);
  if (rows == 0 || width == 0) return;
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool vectors = width % kVecWidth<T> == 0 && AllVecAligned(args.gate_up.as<T>(), args.y.as<T>());
    Launch(stream, ElementwiseGrid(rows * width, vectors ? kVecWidth<T> : 1),
           vectors ? SwigluForwardKernel<kVecWidth<T>, T> : SwigluForwardKernel<1, T>, args.gate_up.as<T>(),
           args.y.as<T>(), rows, width, amax);
  });
}

void SwigluBackwardCuda(const SwigluBackwardArgs& args, Stream& stream) {
  const int64_t rows = args.dy.dim(0);
  const int64_t width = args.dy.dim(1);
  uint32_t* const amax = StartAmax(args.amax, stream);
  if (rows == 0 || width == 0) return;
  DispatchFloat(args.dy.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool vectors =
        width % kVecWidth<T> == 0 && AllVecAligned(args.gate_up.as<T>(), args.dy.as<T>(), args.dgate_up.as<T>());
    Launch(stream, ElementwiseGrid(rows * width, vectors ? kVecWidth<T> : 1),
           vectors ? SwigluBackwardKernel<kVecWidth<T>, T> : SwigluBackwardKernel<1, T>, args.gate_up.as<T>(),
           args.dy.as<T>(), args.dgate_up.as<T>(), rows, width, amax);
  });
}

}  // namespace trainyard::kernels::internal
