// Floating-point operations of training, counted as the literature does (Chowdhery et al., arXiv:2204.02311, app. B).
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "worker/model/config.h"

namespace trainyard::train {

// Forward and backward of one token at sequence length T:
//
//   6 (P_block + V C) + 6 sum_l A_l T     P_block: matrix elements of all blocks; A_l: attention width of block l
//
// A multiply-add is two operations; the backward costs twice the forward; attention is causal, so T/2 positions a
// query; recomputation does not count.
double FlopsPerToken(const model::ModelConfig& config, int64_t sequence_length);

// Multiply-adds of an f32 matrix product of a size that suits the machine, in operations a second: the yardstick of
// model FLOP utilisation. Takes about a tenth of a second.
double MeasureGemmRate(kernels::Stream& stream);

}  // namespace trainyard::train
