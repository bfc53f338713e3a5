// One block a row: the softmaxes of both in one pass, the divergence in a second. The words of the top k are found
// first by their place in one order of all words, (p descending, index ascending), as a 64-bit number: a radix
// selection finds the number of the k-th from its high digit down.
#include <cmath>

#include "kernels/core/dispatch.h"
#include "kernels/loss/kl_divergence_internal.h"
#include "kernels/loss/online_softmax.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 512;
constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;

// Smaller comes first. No NaN.
__device__ inline uint64_t PlaceOf(float p, int64_t index) {
  const uint32_t bits = __float_as_uint(p + 0.0f);  // -0 is as large as 0
  const uint32_t ascending = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  return (uint64_t{~ascending} << 32) | static_cast<uint64_t>(index);
}

// The place of the k-th of the row's words, 1 <= k <= size. All threads must call; every one gets it.
template <typename P>
__device__ uint64_t SelectPlace(const P* p, int64_t size, int64_t k) {
  __shared__ uint32_t counts[kDigits];
  __shared__ uint64_t found;        // the digits known so far
  __shared__ int64_t still_before;  // how many of the words that begin with them are looked for
  if (threadIdx.x == 0) {
    found = 0;
    still_before = k;
  }
  for (int shift = 64 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    if (shift < 32 && (size - 1) >> shift == 0) continue;  // a digit of indices that is 0 in all
    for (int d = static_cast<int>(threadIdx.x); d < kDigits; d += kThreads) counts[d] = 0;
    __syncthreads();
    const uint64_t prefix = found;
    const uint64_t known = shift + kDigitBits == 64 ? 0 : ~uint64_t{0} << (shift + kDigitBits);
    for (int64_t i = threadIdx.x; i < size; i += kThreads) {
      const uint64_t place = PlaceOf(ToFloat(p[i]), i);
      if ((place & known) == prefix) atomicAdd(&counts[(place >> shift) & (kDigits - 1)], uint32_t{1});
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = 0;
      while (still_before > counts[digit]) still_before -= counts[digit++];
      found = prefix | (static_cast<uint64_t>(digit) << shift);
    }
    __syncthreads();
  }
  return found;
}

template <typename P, typename Q>
__global__ void __launch_bounds__(kThreads) KlDivergenceKernel(const P* p_logits, const Q* q_logits, float* divergences,
                                                               int64_t rows, int64_t size, int64_t top_k) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const P* const p = p_logits + row * size;
    const Q* const q = q_logits + row * size;
    int has_nan = 0;
    for (int64_t i = threadIdx.x; i < size; i += kThreads) {
      const float a = ToFloat(p[i]), b = ToFloat(q[i]);
      if (a != a || b != b) has_nan = 1;
    }
    has_nan = BlockReduce<kThreads>(has_nan, Max());
    if (has_nan != 0) {  // which no order would put anywhere
      if (threadIdx.x == 0) divergences[row] = NAN;
      continue;
    }
    const bool is_all = top_k == 0 || top_k == size;
    const uint64_t last = is_all ? 0 : SelectPlace(p, size, top_k);

    OnlineSoftmax p_part, q_part;
    for (int64_t i = threadIdx.x; i < size; i += kThreads) {
      const float a = ToFloat(p[i]);
      if (!is_all && PlaceOf(a, i) > last) continue;
      p_part.Add(a);
      q_part.Add(ToFloat(q[i]));
    }
    const RowSoftmax p_all = Combine<kThreads>(p_part);
    const RowSoftmax q_all = Combine<kThreads>(q_part);
    const double p_lse = log(p_all.sum) + double{p_all.max};
    const double q_lse = log(q_all.sum) + double{q_all.max};
    const auto shift = static_cast<float>(p_lse - q_lse);
    float terms = 0;
    for (int64_t i = threadIdx.x; i < size; i += kThreads) {
      const float a = ToFloat(p[i]);
      if (!is_all && PlaceOf(a, i) > last) continue;
      terms += KlTerm(a, ToFloat(q[i]), p_all.max, shift);
    }
    const double sum = BlockReduce<kThreads>(static_cast<double>(terms), Sum());
    if (threadIdx.x == 0) {
      // An infinite logit, or nothing but -inf, leaves no finite sum.
      const bool is_finite = fabs(p_lse) < INFINITY && fabs(q_lse) < INFINITY;
      divergences[row] = is_finite ? static_cast<float>(sum / p_all.sum) : NAN;
    }
  }
}

}  // namespace

void KlDivergenceCuda(const KlDivergenceArgs& args, Stream& stream) {
  const int64_t rows = args.p_logits.dim(0);
  if (rows == 0) return;
  DispatchFloat(args.p_logits.dtype(), [&](auto p_tag) {
    using P = typename decltype(p_tag)::type;
    DispatchFloat(args.q_logits.dtype(), [&](auto q_tag) {
      using Q = typename decltype(q_tag)::type;
      Launch(stream, RowGrid(rows, kThreads), KlDivergenceKernel<P, Q>, args.p_logits.as<P>(), args.q_logits.as<Q>(),
             args.divergences.as<float>(), rows, args.p_logits.dim(1), args.top_k);
    });
  });
}

}  // namespace trainyard::kernels::internal
