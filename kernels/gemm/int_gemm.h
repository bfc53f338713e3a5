// Exact products of small integer codes, for evaluating models whose weights and activations are INT codes.
//
//   IntGemm:       c[i,j] = sum_k a[i,k] b[j,k]                     c i32, exact
//   CodeRowSums:   sums[i] = sum_k a[i,k]                           i32, exact
//   IntGridLinear: y[i,j] = step_a[i] step_b[j] sum_k (a[i,k] + 1/2)(b[j,k] + 1/2)
//                         + bias[j]
//                  sum_k (a + 1/2)(b + 1/2) = sum a b + (sum a)/2 + (sum b)/2 + K/4    (quest.md 2.4)
//
// The value of a code on the QuEST grid is (code + 1/2) step, with a step a row of each operand. IntGridLinear computes
// the sum exactly and the rest in double, so each y is rounded once (and a double's rounding before; with a bias, to
// f32 before that is added). Codes: signed bytes in u8 tensors (rows, k), or, with `packed`, two's complement codes of
// 4 bits in (rows, ceil(k / 2)), the even column in the low half (kernels/quant/packed_rows.h); what is in the last
// half of a row with odd k is not read. a: m rows, b: n rows, c and y: (m, n), k at most kMaxIntGemmDepth so that no
// sum leaves i32. c and y are overwritten and alias nothing. Integers, so the same bits for any number of threads and
// on any CPU or GPU (the CUDA kernels have run on the emulated device only). No memory is allocated; each thread
// of the CPU uses about 0.5 MB of its stack.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

// 2^31 / 128^2 - 1.
inline constexpr int64_t kMaxIntGemmDepth = 131071;

struct IntCodes {
  TensorView codes;
  bool packed = false;
};

struct IntGemmArgs {
  IntCodes a, b;
  int64_t depth = 0;  // k
  TensorView c;
};
void IntGemm(const IntGemmArgs& args, Stream& stream);

struct CodeRowSumsArgs {
  IntCodes a;
  int64_t depth = 0;
  TensorView sums;  // (rows)
};
void CodeRowSums(const CodeRowSumsArgs& args, Stream& stream);

struct IntGridLinearArgs {
  IntCodes a, b;  // activations and weights
  int64_t depth = 0;
  TensorView a_steps, b_steps;  // f32 (m), (n)
  TensorView a_sums, b_sums;    // i32 (m), (n): CodeRowSums
  TensorView bias = {};         // optional, f32 or bf16 (n)
  TensorView y;                 // f32 or bf16 (m, n)
};
void IntGridLinear(const IntGridLinearArgs& args, Stream& stream);

}  // namespace trainyard::kernels
