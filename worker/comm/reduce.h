// The one sum of the communicators.
//
//   out[i] = round(scale * (((pieces[0][i] + pieces[1][i]) + pieces[2][i]) + ...))
//
// Adds in f32 in that order and rounds once to the dtype (f32 or bf16). `out` may be one of the pieces, exactly.
#pragma once

#include <cstdint>

#include "kernels/core/dtype.h"

namespace trainyard::comm {

void SumInRankOrder(const void* const* pieces, int ranks, int64_t count, kernels::DType dtype, float scale, void* out);

}  // namespace trainyard::comm
