// Sets of basis vectors, as ascending lists of their numbers.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

// indices: i32 (r), overwritten with where the r largest of `scores` are, ascending. Of equal scores those with the
// lowest indices are taken. scores: f32 (n), n >= r, not negative; NaN counts as the largest. One thread.
struct TopIndicesArgs {
  TensorView scores, indices;
};
void TopIndices(const TopIndicesArgs& args, Stream& stream);

// sources: i32 (q), overwritten: sources[j] is the place in `from` that holds to[j], or -1. from: i32 (p), to: i32 (q),
// both strictly ascending. This is the 0/1 matrix R = P[:, from]^T P[:, to] of an orthonormal basis P: column j has its
// only 1 in row sources[j], or none.
struct MatchIndicesArgs {
  TensorView from, to, sources;
};
void MatchIndices(const MatchIndicesArgs& args, Stream& stream);

}  // namespace trainyard::kernels
