#include "kernels/core/launch.h"
#include "kernels/transform/index_sets.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 1024;

// Sum of `value` over the threads before this one; *total: over all. All threads of the block must call.
__device__ inline int SumBefore(int value, int* total) {
  __shared__ int warp_sums[kThreads / 32];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  int sum = value;
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(0xFFFFFFFFu, sum, static_cast<unsigned>(offset));
    if (lane >= offset) sum += other;
  }
  __syncthreads();  // the last call's sums have been read
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  int before = 0;
  int all = 0;
  for (int w = 0; w < kThreads / 32; ++w) {
    if (w == warp) before = all;
    all += warp_sums[w];
  }
  *total = all;
  return before + sum - value;
}

// Floats that are not negative are ordered like these; what is no number comes last.
__device__ inline uint32_t MagnitudeOf(float x) {
  return __float_as_uint(x) & 0x7FFFFFFFu;
}

struct Threshold {
  uint32_t magnitude;
  int ties;  // how many of those that are equal belong to the r largest; the first of them
};

// The r-th largest magnitude, digit by digit from the top (codec/magnitude_threshold.cc): the counts of the next digit
// among the values that share the digits so far.
__device__ inline Threshold FindThreshold(const float* scores, int64_t n, int r) {
  constexpr int kBins = 2 * kThreads;
  __shared__ int counts[kBins];
  __shared__ uint32_t chosen;
  __shared__ int left;
  Threshold threshold{0, r};
  for (int shift = 20; shift >= 0; shift = shift == 20 ? 9 : shift - 9) {
    const int bits = shift == 0 ? 9 : 11;
    const int above = shift + bits;
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) counts[bin] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      const uint32_t magnitude = MagnitudeOf(scores[i]);
      if ((magnitude >> above) != (threshold.magnitude >> above)) continue;
      atomicAdd(&counts[(magnitude >> shift) & ((1u << bits) - 1)], 1);
    }
    __syncthreads();
    // Two bins a thread, the highest first.
    const int bin = kBins - 1 - 2 * static_cast<int>(threadIdx.x);
    int all = 0;
    const int before = SumBefore(counts[bin] + counts[bin - 1], &all);
    const int wanted = threshold.ties - before;
    if (wanted > 0 && wanted <= counts[bin] + counts[bin - 1]) {
      const bool is_first = wanted <= counts[bin];
      chosen = static_cast<uint32_t>(is_first ? bin : bin - 1);
      left = is_first ? wanted : wanted - counts[bin];
    }
    __syncthreads();
    threshold.magnitude |= chosen << shift;
    threshold.ties = left;
  }
  return threshold;
}

// One block: n is the length of a basis, a few ten thousand at most, and stays in the second-level cache.
__global__ void TopIndicesKernel(const float* scores, int64_t n, int r, int32_t* indices) {
  const Threshold threshold = FindThreshold(scores, n, r);
  int ties = threshold.ties;
  int taken = 0;
  for (int64_t first = 0; first < n && taken < r; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    const uint32_t magnitude = i < n ? MagnitudeOf(scores[i]) : 0;
    const bool is_above = i < n && magnitude > threshold.magnitude;
    const bool is_equal = i < n && magnitude == threshold.magnitude;
    // Both counts in one sum: each is at most kThreads.
    int all = 0;
    const int before = SumBefore((is_above ? 1 << 16 : 0) + (is_equal ? 1 : 0), &all);
    const int equal_before = before & 0xFFFF;
    if (is_above || (is_equal && equal_before < ties)) {
      indices[taken + (before >> 16) + (equal_before < ties ? equal_before : ties)] = static_cast<int32_t>(i);
    }
    const int equal = (all & 0xFFFF) < ties ? all & 0xFFFF : ties;
    taken += (all >> 16) + equal;
    ties -= equal;
  }
}

__global__ void MatchIndicesKernel(const int32_t* from, int64_t from_count, const int32_t* to, int64_t to_count,
                                   int32_t* sources) {
  for (int64_t j = GlobalThread(); j < to_count; j += GlobalThreads()) {
    const int32_t wanted = to[j];
    int64_t begin = 0;  // the first that is not below `wanted` lies in [begin, end]
    int64_t end = from_count;
    while (begin < end) {
      const int64_t middle = (begin + end) / 2;
      if (from[middle] < wanted) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    sources[j] = begin < from_count && from[begin] == wanted ? static_cast<int32_t>(begin) : -1;
  }
}

}  // namespace

void TopIndicesCuda(const TopIndicesArgs& args, Stream& stream) {
  const int64_t r = args.indices.size();
  if (r == 0) return;
  Launch(stream, {.blocks = 1, .threads = kThreads}, TopIndicesKernel, args.scores.as<float>(), args.scores.size(),
         static_cast<int>(r), args.indices.as<int32_t>());
}

void MatchIndicesCuda(const MatchIndicesArgs& args, Stream& stream) {
  const int64_t count = args.to.size();
  if (count == 0) return;
  Launch(stream, ElementwiseGrid(count), MatchIndicesKernel, args.from.as<int32_t>(), args.from.size(),
         args.to.as<int32_t>(), count, args.sources.as<int32_t>());
}

}  // namespace trainyard::kernels::internal
