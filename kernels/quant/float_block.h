// How ops over f32 or bf16 storage share one loop over floats: a block at a time, converted in the first-level cache or
// not at all.
#pragma once

#include <cstdint>

#include "kernels/core/tensor.h"

namespace trainyard::kernels::internal {

inline constexpr int64_t kFloatBlock = 1024;

// Elements first .. first + count - 1 of x as floats: x itself if it is f32, otherwise converted into `buffer`.
const float* LoadFloats(const TensorView& x, int64_t first, int64_t count, float* buffer);

// Where to compute these elements of y: y itself if it is f32, otherwise `buffer`. Done by StoreFloats.
float* FloatsOf(const TensorView& y, int64_t first, float* buffer);
void StoreFloats(const float* values, const TensorView& y, int64_t first, int64_t count);

bool IsFloatStorage(const TensorView& x);  // f32 or bf16

}  // namespace trainyard::kernels::internal
