// MXFP4 quantizers of Quartet (arXiv:2505.14669; shared/methods/quartet.md 2.1, 2.3, 2.4): E2M1 codes, one E8M0 scale
// for 32 consecutive elements.
//
//   kQuest (forward):  scale = E8M0((2.92247856 / 6) spread(v) + 1e-8), u = v / scale; spread is the standard deviation
//   of
//                      the 32 values with their mean removed, or their root mean square
//   kAbsMax (backward): scale = 2^(floor(log2 max|v|) - 2), u = range v / scale; with range 3/4 |u| < 6: nothing clips
//   code = E2M1(u), nearest even or stochastic, saturating at 6; mask = 1 where |u| < 6
//   v is represented by code * scale / range (range 1 for kQuest)
//
// `values` holds code * scale, exact in bf16; the product of two operands is divided by both ranges (16/9 for kAbsMax
// on both sides; the paper's 3 v view with its 1/9 is the same). A group of zeros has scale code 0. A group with a NaN
// or infinity has scale code 255 and NaN values. The rotation is the caller's. Sums are f32 in a fixed order: the same
// bits for any number of threads.
#pragma once

#include "kernels/quant/cast.h"
#include "kernels/quant/e8m0.h"
#include "kernels/quant/fp4_groups.h"

namespace trainyard::kernels {

inline constexpr float kMxRange = 0.75f;

enum class MxScale { kQuest, kAbsMax };
enum class MxSpread { kStandardDeviation, kRootMeanSquare };

struct MxFormat {
  MxScale scale = MxScale::kQuest;
  E8M0Rounding exponent = E8M0Rounding::kFloor;    // of kQuest
  MxSpread spread = MxSpread::kStandardDeviation;  // of kQuest
  float range = kMxRange;                          // of kAbsMax: in (0, 1]; 1 is the plain OCP rule, which clips
  Rounding rounding = Rounding::kNearestEven;

  constexpr float Range() const { return scale == MxScale::kQuest ? 1.0f : range; }
};

struct MxQuantizeArgs {
  TensorView v;  // f32 or bf16 (rows, cols), cols a multiple of 32
  MxFormat format;
  PhiloxKey random = {};  // stochastic: element i of v uses RandomWord(random, i)
  // Results, each overwritten; any may be absent.
  TensorView packed = {};  // u8 (rows, cols / 2)
  TensorView scales = {};  // u8 (rows, cols / 32)
  TensorView values = {};  // f32 or bf16 (rows, cols); may be v
  TensorView mask = {};    // u8 (rows, cols / 8): column c is bit c % 8 of byte c / 8
};
void MxQuantize(const MxQuantizeArgs& args, Stream& stream);

}  // namespace trainyard::kernels
