#pragma once

#include <vector>

#include "kernels/core/simd.h"
#include "kernels/gemm/int_gemm.h"

namespace trainyard::kernels::internal {

// One element of IntGridLinear without bias, from the exact sum of its codes' products:
//   step_a step_b (sum + (a_sum + b_sum) / 2 + k / 4)
// The bracket, times 4, is a whole number below 2^53, and the product of two float steps fits a double: two roundings
// in all, whichever products and sums a compiler contracts. row_term is GridRowTerm.
TY_INLINE double GridRowTerm(int32_t a_sum, int64_t depth) {
  return 2.0 * static_cast<double>(a_sum) + static_cast<double>(depth);
}
TY_INLINE float GridValue(int32_t sum, double row_term, float a_step, int32_t b_sum, float b_step) {
  const double four_sums = 4.0 * static_cast<double>(sum) + (row_term + 2.0 * static_cast<double>(b_sum));
  return static_cast<float>(four_sums * (static_cast<double>(a_step) * static_cast<double>(b_step)) * 0.25);
}

// The inner loops for one instruction set. A unit is 32 bits of neighbouring codes of one row: what one lane multiplies
// and adds in one instruction. Codes beyond a row's end are zero (and count as such).
struct IntKernel {
  const char* name;
  bool only_small_right;  // right operands of 4 bits: codes of -8 .. 7
  int64_t unit_codes;     // 2 (16 bits each) or 4 (8 bits each)
  int64_t tile_rows;      // of a, at most
  int64_t tile_columns;   // rows of b
  // Codes as the left operand's units, and what a tile of products of this row starts from.
  int32_t (*expand_left)(const uint8_t* codes, int64_t count, void* units);
  void (*expand_right)(const uint8_t* codes, int64_t count, void* units);
  // c[i,j] += starts[i] + sum over `units` units of a[i] * b[j], for `rows` <= tile_rows and tile_columns columns.
  // a: a row every a_stride units; b: unit u of column j at b[u * tile_columns + j].
  void (*multiply)(const int32_t* a, int64_t a_stride, const int32_t* starts, int64_t rows, const int32_t* b,
                   int64_t units, int32_t* c, int64_t c_stride);
};

// All that this CPU can run, the fastest first.
std::vector<IntKernel> AllIntKernels();

// The fastest for operands stored like this.
const IntKernel& FastestIntKernel(const IntCodes& right);

void IntGemmWith(const IntKernel& kernel, const IntGemmArgs& args, Stream& stream);
void IntGemmCpu(const IntGemmArgs& args, Stream& stream);
void CodeRowSumsCpu(const CodeRowSumsArgs& args, Stream& stream);
void IntGridLinearCpu(const IntGridLinearArgs& args, Stream& stream);
void IntGemmCuda(const IntGemmArgs& args, Stream& stream);
void CodeRowSumsCuda(const CodeRowSumsArgs& args, Stream& stream);
void IntGridLinearCuda(const IntGridLinearArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
