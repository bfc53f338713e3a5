// E2M1 codes with a scale for each group of consecutive elements, as MXFP4 and NVFP4 keep them, back to numbers:
//
//   value[i] = E2M1(code[i]) * scale[i / group]
//
// which bf16 holds exactly (two significant bits times one or four) wherever it is a normal number. What is the same
// for a whole tensor (the f32 scale of NVFP4, the range of MXFP4) is the consumer's: it belongs behind the product.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

inline constexpr int64_t kMxGroup = 32;
inline constexpr int64_t kNvGroup = 16;

struct Fp4GroupsDequantizeArgs {
  TensorView packed;  // u8 (rows, cols / 2): the code of an even column in the low half of its byte
  TensorView scales;  // u8 (rows, cols / 32): E8M0, group 32. f8_e4m3 (rows, cols / 16): group 16
  TensorView values;  // f32 or bf16 (rows, cols), overwritten; cols a multiple of the group
};
void Fp4GroupsDequantize(const Fp4GroupsDequantizeArgs& args, Stream& stream);

}  // namespace trainyard::kernels
