// Matrix products by cuBLASLt. For <op>_cuda.cu only: programs for the emulated device have a function here that takes
// nothing. Compiled and linked against cuBLASLt 13.1; has not run on a GPU.
//
// What the library runs for a shape (a plan) is chosen once and kept: the first of its heuristics, which depends on the
// shape, the alignment of the operands, the GPU and the library's version alone, or, with GemmTuning::kMeasured, the
// fastest of its first eight. A split of k is summed in f32 outside the output. Each stream has a workspace of 32 MiB
// and behind it a place for the alpha and beta that a kernel makes of factors on the device, each GPU a handle; they
// live as long as the program. Any thread may call. Nothing here waits for the GPU but a measurement, which does not
// take place while a graph is captured.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels::internal {

// How the library finds the factor of 8-bit and 4-bit elements.
enum class LtScaling : uint8_t {
  kNone,
  kTensor,  // one f32
  kNv,      // E4M3 for 16 elements of E2M1 along k, in the library's tiles
};

// Elements of four bits, two a byte, have dtype kU8 and the scaling kNv.
struct LtProduct {
  // c = alpha op(a) op(b) + beta c + bias, as in gemm.h: row-major, (m, k) (k, n) (m, n).
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  const void* bias = nullptr;  // of c's dtype, or of bias_type
  DType a_type = DType::kF32, b_type = DType::kF32, c_type = DType::kF32, bias_type = DType::kF32;
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1, beta = 0;
  LtScaling scaling = LtScaling::kNone;
  const void* a_scale = nullptr;  // on the device
  const void* b_scale = nullptr;
  // One f32 on the device each, or null: factors of alpha, for operands of any type.
  const float* a_factor = nullptr;
  const float* b_factor = nullptr;

  bool HasFactors() const { return a_factor != nullptr || b_factor != nullptr; }
};

// False, with nothing enqueued that matters, if the library has no kernel for such a product on this GPU: an empty one,
// a bias of another dtype than it takes, a format the GPU lacks.
bool RunCublasLt(const LtProduct& product, Stream& stream);

// The compute capability of the current GPU, 90 for 9.0; 0 in a program without the library.
int CublasLtCapability();

}  // namespace trainyard::kernels::internal
