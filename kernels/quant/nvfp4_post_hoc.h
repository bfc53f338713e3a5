// MS-EDEN with post hoc range alignment (arXiv:2601.22813, sec. 7; shared/methods/quartet2.md 2.6): the same quantizer
// as NvMethod::kMsEden with groups of 16, but without the tensor's largest magnitude beforehand, so that what makes x
// (a rotation) need not run twice.
//
//   pass 1, a group     p = E8M3(max |x| / eden_clip)    code = E2M1(x / p)    pseudo = bf16(p S)    S: the EDEN factor
//   pass 2, a scale     s32 = max pseudo / 256           s8 = SR_E4M3(pseudo / s32)
//
// E8M3: three bits of mantissa in the exponent range of f32, nearest even, so that codes clip as with s8 itself. x is
// represented by code * s8 * s32. Differs from kMsEden by the rounding of pseudo to bf16 and in that s8 is rounded
// once. A group whose p is below 2^-117 has zeros and s8 = 1. If that is all groups, s32 = 1. A NaN or infinity
// anywhere makes s32 NaN. The same bits for any number of threads.
#pragma once

#include "kernels/quant/nvfp4.h"

namespace trainyard::kernels {

struct NvPostHocArgs {
  TensorView x;  // f32 or bf16 (rows, cols); cols a multiple of 16
  float eden_clip = kEdenClip;
  PhiloxKey random = {};  // group i of 16 uses RandomWord(random, i)
  // Results, each overwritten; packed, scales and values may be absent.
  TensorView pseudo_scales;  // bf16 (rows, cols / 16): what pass 1 leaves for pass 2
  TensorView tensor_scale;   // f32 (1)
  TensorView packed = {};    // u8 (rows, cols / 2)
  TensorView scales = {};    // f8_e4m3 (rows, cols / 16)
  TensorView values = {};    // f32 or bf16 (rows, cols): code * s8; may be x
};
void NvPostHocQuantize(const NvPostHocArgs& args, Stream& stream);

}  // namespace trainyard::kernels
