// A saved FP4 operand quantized once more for a product that contracts over its rows (quartet.md 2.4, quartet2.md 2.6):
//
//   v = values(codes, scales)^T            without the tensor's own f32 scale, which belongs behind the product
//   v = H (s o v)                          runs of `group`; nothing with group 0
//   result = quantize(v)                   MXFP4, or NVFP4 with the largest magnitude of v
//
// Bit for bit Fp4GroupsDequantize, Transpose and MxQuantize or NvQuantize. The f32 scale of the result (1 for MXFP4)
// comes to the saved one as a factor. The same bits for any number of threads.
#pragma once

#include <variant>

#include "kernels/quant/mxfp4.h"
#include "kernels/quant/nvfp4.h"

namespace trainyard::kernels {

struct RequantizeArgs {
  // The operand (rows, cols): codes with scales as in fp4_groups.h, or else `operand`, its values.
  TensorView packed = {}, scales = {};
  TensorView operand = {};  // f32 or bf16
  int64_t group = 0;        // 0, or 16 to 128, dividing `rows`
  TensorView signs = {};    // as in transpose.h
  std::variant<MxFormat, NvFormat> format;
  PhiloxKey random = {};
  // Scratch.
  TensorView dequantized = {};  // bf16 (rows, cols), with codes only
  TensorView rotated;           // f32 (cols, rows)
  TensorView amax = {};         // f32 (1), NVFP4 only
  // Results; all but tensor_scale of NVFP4 may be absent.
  TensorView tensor_scale = {};   // f32 (1), NVFP4 only
  TensorView result_packed = {};  // u8 (cols, rows / 2)
  TensorView result_scales = {};  // as the format's
  TensorView result_values = {};  // f32 or bf16 (cols, rows); may be `rotated`
};
void Requantize(const RequantizeArgs& args, Stream& stream);

}  // namespace trainyard::kernels
