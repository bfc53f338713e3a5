// A matrix product whose operands are read by index arithmetic instead of from matrices, for <op>_cuda.cu: the
// unfolded image of a convolution is never written down.
//
//   C[row, col] = sum over k of A(row, k) B(k, col), k ascending, one rounding a product and sum (fmaf)
//
// A block makes tiles of 64 x 64, a thread 4 x 4 of one, in steps of 16 of k through shared memory; the operands of the
// next step are read while this one's are multiplied.
#pragma once

#include <cstdint>

#include "kernels/core/launch.h"
#include "kernels/core/vec.h"

namespace trainyard::kernels::internal {

// Quotient and remainder by a number known to the host only, without a division (Granlund and Montgomery, "Division by
// invariant integers using multiplication", PLDI 1994). For 0 <= n < 2^31.
struct Divisor {
  explicit Divisor(int64_t value = 1) : divisor(static_cast<uint32_t>(value)) {
    while ((uint64_t{1} << shift) < divisor) ++shift;
    multiplier = static_cast<uint32_t>((uint64_t{1} << 32) * ((uint64_t{1} << shift) - divisor) / divisor + 1);
  }
  __device__ int Quotient(int n) const {
    const unsigned dividend = static_cast<unsigned>(n);
    return static_cast<int>((__umulhi(dividend, multiplier) + dividend) >> shift);
  }
  __device__ int Split(int n, int* remainder) const {
    const int quotient = Quotient(n);
    *remainder = n - quotient * static_cast<int>(divisor);
    return quotient;
  }

  uint32_t divisor, multiplier = 0, shift = 0;
};

inline constexpr int kProductThreads = 256;
inline constexpr int kTileExtent = 64;
inline constexpr int kTileDepth = 16;
inline constexpr int kThreadExtent = 4;
inline constexpr int kTileLoads = kTileExtent * kTileDepth / kProductThreads;  // elements of one operand a thread reads

// Which elements those are. Neighbouring threads follow k where that is how the operand lies in memory, else the row or
// column.
struct TileElement {
  int k, line;
};
template <bool kAlongDepth>
__device__ inline TileElement ElementOf(int load) {
  const int thread = threadIdx.x;
  if constexpr (kAlongDepth) {
    return {thread % kTileDepth, thread / kTileDepth + kProductThreads / kTileDepth * load};
  } else {
    return {thread / kTileExtent + kProductThreads / kTileExtent * load, thread % kTileExtent};
  }
}

// One tile of C; all threads of the block must call. Source:
//   static constexpr bool kBAlongDepth;                    how B is read; A is read along the depth
//   int first_k(), end_k();                                the range of the sum
//   float A(int load, int line, int k), B(...) const;      element `load` of this thread (ElementOf), `line` of the
//   tile;
//                                                          0 beyond the matrices
template <typename Source>
__device__ inline void TileProduct(const Source& source, float (&c)[kThreadExtent][kThreadExtent]) {
  using Four = Vec<float, kThreadExtent>;
  constexpr int kPitch = kTileExtent + 4;
  __shared__ Four a_memory[kTileDepth * kPitch / kThreadExtent], b_memory[kTileDepth * kPitch / kThreadExtent];
  float* const a = reinterpret_cast<float*>(a_memory);
  float* const b = reinterpret_cast<float*>(b_memory);
  float next_a[kTileLoads], next_b[kTileLoads];
  const auto read = [&](int first) {
    TY_UNROLL
    for (int load = 0; load < kTileLoads; ++load) {
      const TileElement of_a = ElementOf<true>(load);
      next_a[load] = source.A(load, of_a.line, first + of_a.k);
      const TileElement of_b = ElementOf<Source::kBAlongDepth>(load);
      next_b[load] = source.B(load, of_b.line, first + of_b.k);
    }
  };
  const int row = static_cast<int>(threadIdx.x) / (kTileExtent / kThreadExtent) * kThreadExtent;
  const int col = static_cast<int>(threadIdx.x) % (kTileExtent / kThreadExtent) * kThreadExtent;
  TY_UNROLL
  for (int i = 0; i < kThreadExtent; ++i) {
    TY_UNROLL
    for (int j = 0; j < kThreadExtent; ++j) c[i][j] = 0;
  }
  const int end = source.end_k();
  int first = source.first_k();
  if (first < end) read(first);
  for (; first < end; first += kTileDepth) {
    __syncthreads();  // the last step's operands have been read
    TY_UNROLL
    for (int load = 0; load < kTileLoads; ++load) {
      const TileElement of_a = ElementOf<true>(load);
      a[of_a.k * kPitch + of_a.line] = next_a[load];
      const TileElement of_b = ElementOf<Source::kBAlongDepth>(load);
      b[of_b.k * kPitch + of_b.line] = next_b[load];
    }
    __syncthreads();
    if (first + kTileDepth < end) read(first + kTileDepth);
    TY_UNROLL
    for (int k = 0; k < kTileDepth; ++k) {
      const Four rows = LoadVec<kThreadExtent>(a + k * kPitch + row);
      const Four cols = LoadVec<kThreadExtent>(b + k * kPitch + col);
      TY_UNROLL
      for (int i = 0; i < kThreadExtent; ++i) {
        TY_UNROLL
        for (int j = 0; j < kThreadExtent; ++j) c[i][j] = fmaf(rows[i], cols[j], c[i][j]);
      }
    }
  }
}

// Calls store(row, col, value) for this thread's elements of the tile at (0, 0).
template <typename Store>
__device__ inline void ForThreadElements(const float (&c)[kThreadExtent][kThreadExtent], const Store& store) {
  const int row = static_cast<int>(threadIdx.x) / (kTileExtent / kThreadExtent) * kThreadExtent;
  const int col = static_cast<int>(threadIdx.x) % (kTileExtent / kThreadExtent) * kThreadExtent;
  TY_UNROLL
  for (int i = 0; i < kThreadExtent; ++i) {
    TY_UNROLL
    for (int j = 0; j < kThreadExtent; ++j) store(row + i, col + j, c[i][j]);
  }
}

}  // namespace trainyard::kernels::internal
