// What a low-rank update leaves out of a matrix is kept, in few bits, and added to the next gradient
// (dct-lowrank.md 2.5).
//
//   AddFeedback:   g = factor * g + value(store)
//   KeepResidual:  g = g - share X Y;   store = quantized(g)
//
// A store of 8 or 4 bits holds the codes of each row between the row's extremes:
//
//   u = (max - min) / (2^bits - 1)     code = floor((x - min) / u + 1/2)     value = min + code u
//
// so the error is at most u/2; a constant row (u = 0, codes 0) is exact. Codes of 4 bits lie in pairs, the even column
// in the low half. A store of 32 bits holds the values themselves: full error feedback, and the momentum of Trion,
// whose `share` is 1 - mu. Zeroed memory is a store of zeros. Values must be finite. A row is the row of the matrix,
// whichever side is projected. Same bits for any number of threads.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/optim/low_rank_factors.h"

namespace trainyard::kernels {

struct FeedbackStore {
  int bits = 8;                   // 4, 8 or 32
  TensorView codes;               // u8 (rows, FeedbackRowBytes); 32 bits: f32 (rows, cols)
  TensorView min = {}, max = {};  // f32 (rows); 32 bits: absent
};

// Of one row of codes, for 4 and 8 bits.
inline constexpr int64_t FeedbackRowBytes(int bits, int64_t cols) {
  return bits == 4 ? (cols + 1) / 2 : cols;
}

struct AddFeedbackArgs {
  TensorView gradient;  // f32 (rows, cols)
  FeedbackStore store;
  TensorView factor = {};  // optional, f32 (1)
};
void AddFeedback(const AddFeedbackArgs& args, Stream& stream);

struct KeepResidualArgs {
  TensorView gradient;      // f32 (rows, cols): overwritten with the residual before it is rounded
  LowRankFactors selected;  // X Y
  float share = 1;
  FeedbackStore store;
};
void KeepResidual(const KeepResidualArgs& args, Stream& stream);

}  // namespace trainyard::kernels
