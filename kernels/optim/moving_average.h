// Averages of weights that go along with a training: the exponential one with rate 1 - decay, the uniform one with rate
// 1 / t at step t.
//
//   average = average + rate * (x - average)
//
// f32 of one size. Element-wise: the same bits on any thread count. In this form the error of an f32 average stays at
// an ulp of the difference, not of the average.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct MovingAverageArgs {
  TensorView x;
  TensorView average;  // updated
  float rate = 0.0f;   // 1: average becomes x, up to rounding; the uniform average starts so
};

void MovingAverage(const MovingAverageArgs& args, Stream& stream);

}  // namespace trainyard::kernels
