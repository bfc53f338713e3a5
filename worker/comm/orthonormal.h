// Makes vectors orthonormal, with the same bits on every machine: f64 sums in a fixed order.
#pragma once

#include <cstdint>

namespace trainyard::comm {

// `vectors`: `count` vectors of `length` f32, one after the other; overwritten. Gram-Schmidt, each vector projected
// twice. A vector that lies within about 1e-6 of the span of those before it becomes zero. Returns how many did.
// Vectors must be finite.
int Orthonormalize(float* vectors, int count, int64_t length);

}  // namespace trainyard::comm
