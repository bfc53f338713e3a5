#pragma once

#include <vector>

#include "kernels/gemm/int_gemm.h"

namespace trainyard::kernels::internal {

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

}  // namespace trainyard::kernels::internal
