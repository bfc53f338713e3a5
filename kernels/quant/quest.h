// The QuEST quantizer of one operand (arXiv:2502.05003; shared/methods/quest.md 2.2, 2.3), row by row:
//
//   v = x H                     H of `rotate_group` columns (kernels/transform/hadamard.h), or v = x with group 0
//   r = sqrt(mean_k v_k^2)      clip = alpha r + 1e-8      alpha minimises the squared error on N(0, 1)
//                               kAbsMax instead: clip = max_k |v_k| + 1e-8 (the paper's straight-through baseline)
//                               kGiven: `steps` is given, and clip follows from it
//   INT b: step = 2 clip / (2^b - 1), q = clamp(round_half_even(v / step + 1/2), -2^(b-1) + 1, 2^(b-1)),
//          value = (q - 1/2) step, code = q - 1: 2^b levels, evenly spaced, none of them zero
//   FP4:   step = clip / 6, code = E2M1(v / step), ties to even, value = E2M1 level * step
//   2:4:   of every 8 columns seen as 4 pairs, the 2 pairs of least v_a^2 + v_b^2 become 0 (of equal ones the later)
//
// Mask of the gradient, 1 where it passes:
//   kTrust: |value - v| <= T       T = trust_factor * clip / alpha, by default half the widest gap between levels (step
//   / 2
//                                  of INT, step of FP4): entries inside the range always pass. In 1 bit instead:
//                                  |v| <= one_bit_outer_scale * clip
//   kClip:  |v| <= clip            kStraightThrough: all pass
// T in units of the clip point rather than of r: so a zero, whose error is exactly step / 2, passes also in rows as
// small as the 1e-8 (there the authors' T r masks everything, and a layer that begins at zero would stay there).
//
// H is orthonormal, so r is taken from x: a row is read once for r and once for the rest, which rotates it on the way.
// Sums are f32 in a fixed order: the same bits for any number of threads. A row with a NaN or infinity, or whose
// squares overflow, has a step and values that are not finite; its codes and mask mean nothing.
#pragma once

#include "kernels/codec/bit_packing.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/quant/quest_formula.h"

namespace trainyard::kernels {

enum class QuestGrid { kInt, kFp4 };
enum class QuestClip { kMse, kAbsMax, kGiven };
enum class QuestMask { kTrust, kClip, kStraightThrough };

struct QuestFormat {
  QuestGrid grid = QuestGrid::kInt;
  int bits = 4;                // of kInt: 1..8
  bool is_2_4_sparse = false;  // columns a multiple of 8
  QuestClip clip = QuestClip::kMse;
  QuestMask mask = QuestMask::kTrust;
  float trust_factor = -1;  // in units of r; negative: the default above
  float one_bit_outer_scale = kOneBitOuterScale;

  float Alpha() const;
};

struct QuestQuantizeArgs {
  TensorView v;  // x above: f32 or bf16 (rows, cols)
  QuestFormat format;
  int64_t rotate_group = 0;  // 0, or a power of two from 16 to 1024 that divides the columns
  // Results, each overwritten. All but `steps` may be absent.
  TensorView steps;        // f32 (rows); an input with kGiven
  TensorView values = {};  // f32 or bf16 (rows, cols); may be v
  TensorView codes = {};   // u8 (rows, cols): INT codes as signed bytes, FP4 codes in the low half; 0 where 2:4 drops
  TensorView code_sums = {};  // i32 (rows): sum of the INT codes, for the product of codes; not with 2:4
  TensorView mask = {};       // u8 (rows, PackedBytes(cols, 1))
  TensorView kept = {};       // u8 (rows, PackedBytes(cols, 1)): 1 where 2:4 drops nothing; only with 2:4
};
void QuestQuantize(const QuestQuantizeArgs& args, Stream& stream);

// values from codes: the values of QuestQuantize bit for bit.
struct QuestDequantizeArgs {
  TensorView codes, steps;
  TensorView kept = {};  // with 2:4, else absent
  TensorView values;     // f32 or bf16 (rows, cols), overwritten
  QuestGrid grid = QuestGrid::kInt;
};
void QuestDequantize(const QuestDequantizeArgs& args, Stream& stream);

}  // namespace trainyard::kernels
