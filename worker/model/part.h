// Memory that is planned for the largest of several tensors, as one of them.
#pragma once

#include "base/check.h"
#include "kernels/core/tensor.h"

namespace trainyard::model {

// The head of `memory` as (rows, cols) of its dtype.
inline kernels::TensorView Part(const kernels::TensorView& memory, int64_t rows, int64_t cols) {
  TY_CHECK_LE(rows * cols, memory.size());
  return {memory.data(), memory.dtype(), {rows, cols}};
}

}  // namespace trainyard::model
