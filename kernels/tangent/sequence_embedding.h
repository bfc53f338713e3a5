// One vector for a sequence, from the states of its tokens and their tangents (influence-distillation.md 2.5 and 2.9).
// On every device the same order of sums but for the norm of PositionMean. Pointers are memory of the stream's device.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/tangent/dual.h"

namespace trainyard::kernels {

// out[k * cols + c] = states.tangent(k)[rows - 1, c]: the last token's tangents, joined. states has a row.
void LastTangents(const Dual<float>& states, float* out, Stream& stream);

// out = m / |m|, m = sum over rows of (row + 1) value[row]: later tokens count more (RDS+, arXiv:2503.01807). Zeros if
// m is 0. Sums are f64.
struct PositionMeanArgs {
  Dual<float> states;      // its tangents are not used
  double* sums = nullptr;  // scratch (cols)
  float* out = nullptr;    // (cols)
};
void PositionMean(const PositionMeanArgs& args, Stream& stream);

}  // namespace trainyard::kernels
