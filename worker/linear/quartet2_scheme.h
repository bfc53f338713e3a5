// Quartet II (arXiv:2601.22813; shared/methods/quartet2.md 2.6, 2.8; docs/methods/quartet2.md) and its rivals as its
// authors implemented them: all three products of a layer in NVFP4.
//
//             forward, x / w          dx = A B^T                           dw = A B^T
//   quartet2  4/6 1x16 / 4/6 1x16     E(dy H S), E(w_q^T H S)              E(dy^T H S'), E(x_q^T H S')    H of 128
//   nvidia    RTN 1x16 / RTN 16x16    SR(dy), w_q, not rotated             SR(dy^T H S'), RTN(x^T H S')   H of 16
//   tetrajet  RTN 1x16 / RTN 1x16     SR(dy H S), SR(w_q^T H S)            SR(dy^T H S'), SR(x_q^T H S')  H of 32
//
// RTN: nearest; 4/6: nearest with the better of two scales (also for nvidia with four_over_six); SR: stochastic; E:
// MS-EDEN. x_q, w_q: the operands of the forward, made again. db = sum of dy. Signs are new for each product and call,
// the four stochastic quantizations independent. quartet2 has the switches of spec::LinearQuartet2: without
// requantize_weight dx is as nvidia's; without a backward dx = dy w_q, dw = dy^T x_q; without a forward x_q = x,
// w_q = w.
//
// Emulated: operands as code * s8 in the storage dtype, which holds it exactly, sums in f32, the tensors' f32 scales
// behind the product. On devices with tensor cores for NVFP4 (HasFp4Products of kernels/gemm/fp4_gemm.h) products of
// two quantized operands that lie along the contraction are of the codes instead: all but dx as nvidia has it. The
// scales stay on the device. Sizes: spec::MultiplesOf.
#pragma once

#include <memory>

#include "proto/spec/linear_options.h"
#include "worker/linear/linear_scheme.h"

namespace trainyard::linear {

std::unique_ptr<LinearScheme> MakeQuartet2Scheme(const spec::LinearQuartet2& options);

// For tests: every rotation and transpose of the scheme, with quantizers that change nothing. f32 storage only.
std::unique_ptr<LinearScheme> MakeUnquantizedQuartet2Scheme(const spec::LinearQuartet2& options);

}  // namespace trainyard::linear
