// NVFP4 quantizers of Quartet II and its baselines (arXiv:2601.22813; shared/methods/quartet2.md 2.1 - 2.4, 2.8): E2M1
// codes, one E4M3 scale s8 for 16 consecutive elements, one f32 scale s32 for the tensor, made from its largest
// magnitude:
//
//   s32 = amax / (range cap)     s8 = E4M3(m / range / s32), m the group's largest magnitude; 1 if that is 0
//   code = E2M1(x / (s8 s32)), saturating at 6         x is represented by code * s8 * s32
//
// kNearest: range 6, cap 448; nearest even.
// kFourOverSix: range 6, cap 256; also tries s8' = E4M3(1.5 m / 6 / s32), which maps m to 4, and keeps the scale of the
// smaller sum of squared errors; of equal ones the first.
// kStochastic: range 6 * 16/17, cap 448: |x / (s8 s32)| <= 6, so nothing clips and the mean is x (where s8 is normal).
// kStochasticFourOverSix: range 6 * 16/17, cap 256; rounds stochastically with both scales, each with words of its own,
// and keeps the one whose error came out smaller, which biases the mean. A baseline only.
// kMsEden: range eden_clip, cap 255.99, nearest even; then every s8 becomes SR_E4M3(S s8) with the EDEN factor
// S = sum u^2 / sum u code over eden_group elements, u = x / (s8 s32); 1 if the divisor is 0. Over random rotations of
// x (the caller's: signs first, then Hadamard) the mean is x. In one pass: nvfp4_post_hoc.h.
//
// Blocks: k1x16, or k16x16 with one scale for 16 x 16 elements (stored in each of its rows), so that a transposed
// matrix has the same values; with kNearest and kFourOverSix only.
//
// Quotients by s8 s32 are products with its reciprocal, rounded to f32. `values` holds code * s8, exact in bf16: s32
// belongs behind the product. A tensor whose s32 would be below 2^-117, zero included, has s32 = 1 and becomes zero.
// With an amax from elsewhere (that of the step before) scales saturate at 448. A group with a NaN has a NaN scale and
// values; an infinite or NaN amax is an infinite or NaN s32. Sums are f32 in a fixed order: the same bits for any
// number of threads.
#pragma once

#include "kernels/core/philox.h"
#include "kernels/quant/fp4_groups.h"

namespace trainyard::kernels {

enum class NvMethod { kNearest, kFourOverSix, kStochastic, kStochasticFourOverSix, kMsEden };
enum class NvBlock { k1x16, k16x16 };

// 6 (16/17) / 0.93: the clip factor of least error on N(0, 1).
inline constexpr float kEdenClip = 6.0721062599f;

struct NvFormat {
  NvMethod method = NvMethod::kFourOverSix;
  NvBlock block = NvBlock::k1x16;
  float eden_clip = kEdenClip;  // 4..8
  int eden_group = 16;          // 16 (paper, kernels) or 128 (the authors' training code)
};

struct NvQuantizeArgs {
  TensorView x;     // f32 or bf16 (rows, cols); cols a multiple of 16, of eden_group; rows of 16 with k16x16
  TensorView amax;  // f32 (1): max |x| (AbsMax), or that of the step before
  // f32 (1), optional: x are the values of an operand that stands for x * x_scale; then so does the result.
  TensorView x_scale = {};
  NvFormat format;
  // kStochastic: element i of x uses RandomWord(random, i), for a second scale i + x.size(); kMsEden: group i of 16
  // does.
  PhiloxKey random = {};
  // Results, each overwritten; all but tensor_scale may be absent.
  TensorView tensor_scale;  // f32 (1): s32, times x_scale
  TensorView packed = {};   // u8 (rows, cols / 2): the code of an even column in the low half of its byte
  TensorView scales = {};   // f8_e4m3 (rows, cols / 16)
  TensorView values = {};   // f32 or bf16 (rows, cols); may be x
};
void NvQuantize(const NvQuantizeArgs& args, Stream& stream);

}  // namespace trainyard::kernels
