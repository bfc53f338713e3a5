// The largest magnitude of a tensor, or of each of its rows: what scales are made from.
//
//   y = max |x|        0 of nothing; NaN if one is NaN
//
// A maximum of the bits of |x| as integers, so the order does not matter: the same bits for any number of threads.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct AbsMaxArgs {
  TensorView x;  // f32 or bf16 (rows, cols); any shape where y has one element
  TensorView y;  // f32 (1): of all of x; f32 (rows): of each row. Overwritten
};
void AbsMax(const AbsMaxArgs& args, Stream& stream);

}  // namespace trainyard::kernels
