// How far two arrays lie apart.
//
//   sum (a - b)^2, in f64: differences of floats and their squares lose nothing that shows
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct SquaredDistanceArgs {
  TensorView a, b;  // f32, equal size
};

// The same bits for any number of threads. NaN if a value is NaN. Waits for the result.
double SquaredDistance(const SquaredDistanceArgs& args, Stream& stream);

// sum a^2 in the same way.
double SquaredNorm(const TensorView& a, Stream& stream);

}  // namespace trainyard::kernels
