// Grouped Hadamard transform of rows: every run of `group` consecutive columns is multiplied by H, the Sylvester matrix
// scaled to be orthonormal (symmetric, H H = I), with optional signs before it.
//
//   forward  y = H (s o x)    y[i] = group^-1/2 sum_j (-1)^popcount(i & j) s[j] x[j]
//   inverse  y = s o (H x)    undoes the forward with the same signs
//
// quest.md 2.1 (group 128, no signs) and quartet2.md 2.4 (signs before the transform, shared by the runs of both
// operands of a product, which the rotation then leaves as it was).
// x, y: equal size, last extent a multiple of `group`; f32 or bf16 each, arithmetic in f32, rounded once. y may be x.
// mask: u8 (rows, cols / 8), optional: where bit c % 8 of byte c / 8 is 0, x[r,c] is taken as 0, whatever it is. So
// with `inverse`, dx = s o H (M o dx_h), the gradient that passes the trust mask and is rotated back (quest.md 2.4).
// signs: f32 of +-1, optional; its length divides the last extent and is a multiple of `group`: column c has the sign
// of c modulo that length. Same bits for any number of threads.
#pragma once

#include "kernels/core/philox.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

inline constexpr int64_t kMinHadamardGroup = 16;
inline constexpr int64_t kMaxHadamardGroup = 4096;

// A power of two from the smallest to the largest group.
inline bool IsHadamardGroup(int64_t group) {
  return group >= kMinHadamardGroup && group <= kMaxHadamardGroup && (group & (group - 1)) == 0;
}

struct HadamardArgs {
  TensorView x, y;
  int64_t group = 128;
  TensorView signs = {};  // optional
  TensorView mask = {};   // optional
  bool inverse = false;
};
void Hadamard(const HadamardArgs& args, Stream& stream);

// signs[i] = -1 if the highest bit of RandomWord(random, i) is set, else 1. signs: f32.
struct RandomSignsArgs {
  TensorView signs;
  PhiloxKey random;
};
void RandomSigns(const RandomSignsArgs& args, Stream& stream);

}  // namespace trainyard::kernels
