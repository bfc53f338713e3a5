// For <op>_cuda.cu: the sum of a row's exponentials in one pass, by threads that each see a part of the row (Milakov
// and Gimelshein, arXiv:1805.02867). Each keeps its largest logit and the sum of exp(logit - largest); the block brings
// the sums to one maximum. Sums are f32 in a thread and f64 over the threads.
//
// A NaN or +inf among the logits makes the sum NaN; only -inf among them gives max -inf, sum 0.
#pragma once

#include <limits>

#include "kernels/core/block_reduce.h"
#include "kernels/core/quick_math.h"
#include "kernels/core/vec.h"

namespace trainyard::kernels::internal {

inline constexpr float kNoLogit = -std::numeric_limits<float>::infinity();

struct OnlineSoftmax {
  float max = kNoLogit, sum = 0;

  template <int kWidth>
  __device__ void Add(const Vec<float, kWidth>& logits) {
    float largest = logits[0];
    TY_UNROLL
    for (int e = 1; e < kWidth; ++e) largest = logits[e] > largest ? logits[e] : largest;
    if (largest > max) {
      sum *= QuickExp(max - largest);
      max = largest;
    }
    const float shift = max == kNoLogit ? 0.0f : max;  // -inf minus -inf is no probability 0
    TY_UNROLL
    for (int e = 0; e < kWidth; ++e) sum += QuickExp(logits[e] - shift);
  }
  __device__ void Add(float logit) { Add(Vec<float, 1>{{logit}}); }
};

struct RowSoftmax {
  float max;
  double sum;  // of exp(logit - max)
};

// All threads of a block of kThreads must call; every one gets the row's.
template <int kThreads>
__device__ RowSoftmax Combine(const OnlineSoftmax& part) {
  const float max = BlockReduce<kThreads>(part.max, Max());
  const float sum = part.max == max ? part.sum : part.sum * QuickExp(part.max - max);
  return {max, BlockReduce<kThreads>(static_cast<double>(sum), Sum())};
}

}  // namespace trainyard::kernels::internal
