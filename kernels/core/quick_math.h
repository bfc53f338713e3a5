// For <op>_cuda.cu: exponentials by the unit that GPUs have for them, where the polynomials of math.h would cost more
// time than the memory that the kernel reads and writes. The emulated device has no such unit and takes math.h's, so
// the last bits differ from a GPU's: for results with a tolerance, not for quantizers.
#pragma once

#include "kernels/core/math.h"

namespace trainyard::kernels {

// e^x, relative error at most 3e-7 + 1e-7 |x|; subnormal results are 0. NaN stays NaN.
TY_INLINE float QuickExp(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504088896341f));
  return y;
#else
  return FastExp(x);
#endif
}

// 1 / (1 + e^-x), with that relative error.
TY_INLINE float QuickSigmoid(float x) {
#if defined(__CUDA_ARCH__)
  return __fdividef(1.0f, 1.0f + QuickExp(-x));
#else
  return FastSigmoid(x);
#endif
}

}  // namespace trainyard::kernels
