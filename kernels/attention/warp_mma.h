// Products of 16 x 16 by 16 x 8 tiles of bf16 by the tensor cores (PTX mma.m16n8k16), and what feeds them: fragments
// out of shared memory (ldmatrix) and copies into it (cp.async). Each of these has a plain form with the same result
// beside the instruction, which is what the emulated device runs. The instructions themselves are compiled and have not
// run.
//
// A warp holds the parts of its tiles in registers, with g = lane / 4 and t = lane % 4:
//   left operand (16 x 16), 4 words of two neighbouring columns, the first in the low half:
//     (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)
//   right operand (16 deep, 8 wide), 2 words of two neighbouring depths: (2t, g), (2t + 8, g)
//   sums (16 x 8), 4 floats: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
#pragma once

#include "kernels/core/launch.h"

namespace trainyard::kernels::internal {

using LeftFragment = uint32_t[4];
using RightFragments = uint32_t[4];  // of two right operands after each other
using SumFragment = float[4];

// Two floats rounded to bf16 as one word, the first in the low half.
__device__ inline uint32_t PackPair(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return FromFloat<BFloat16>(low).bits | uint32_t{FromFloat<BFloat16>(high).bits} << 16;
#endif
}

#if !defined(__CUDACC__)
// What the lanes of a warp show each other in the plain product.
struct ShownFragments {
  uint32_t left[32][4];
  uint32_t right[32][2];
};
#endif

// sums += left * right. The products are exact and their sum is f32; in which order, and how it is rounded on the way,
// is the hardware's affair, but always the same. The whole warp must call.
__device__ inline void Multiply(SumFragment& sums, const LeftFragment& left, uint32_t right0, uint32_t right1) {
#if defined(__CUDA_ARCH__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
#elif !defined(__CUDACC__)
  __shared__ ShownFragments shown[32];
  ShownFragments& warp = shown[threadIdx.x / 32];
  const unsigned lane = threadIdx.x % 32;
  __syncwarp();  // the last product's have been read
  for (int i = 0; i < 4; ++i) warp.left[lane][i] = left[i];
  warp.right[lane][0] = right0;
  warp.right[lane][1] = right1;
  __syncwarp();
  const auto half = [](uint32_t word, unsigned odd) {
    return ToFloat(BFloat16{static_cast<uint16_t>(odd != 0 ? word >> 16 : word)});
  };
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8;
    const unsigned col = lane % 4 * 2 + i % 2;
    float sum = 0;
    for (unsigned k = 0; k < 16; ++k) {
      const uint32_t a = warp.left[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
      const uint32_t b = warp.right[col * 4 + k % 8 / 2][k / 8];
      sum += half(a, k % 2) * half(b, k % 2);
    }
    sums[i] += sum;
  }
#endif
}

#if defined(__CUDA_ARCH__)
__device__ inline uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
#endif
__device__ inline uint32_t PairOf(BFloat16 low, BFloat16 high) {
  return low.bits | uint32_t{high.bits} << 16;
}

// The fragments of 16 x 16 elements at `tile` in shared memory, rows kStride elements apart; rows start at multiples of
// 16 bytes. Without bank conflicts if kStride is 8 more than a multiple of 64.
//
// As a left operand.
template <int kStride>
__device__ inline void LoadLeft(LeftFragment& words, const BFloat16* tile) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#if defined(__CUDA_ARCH__)
  const BFloat16* row = tile + (lane % 16) * kStride + lane / 16 * 8;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(SharedAddress(row)));
#else
  for (int i = 0; i < 4; ++i) {
    const BFloat16* pair = tile + (lane / 4 + i % 2 * 8) * kStride + lane % 4 * 2 + i / 2 * 8;
    words[i] = PairOf(pair[0], pair[1]);
  }
#endif
}

// As two right operands: depth along the rows, the first operand's columns are the first 8 rows of the tile.
template <int kStride>
__device__ inline void LoadRight(RightFragments& words, const BFloat16* tile) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#if defined(__CUDA_ARCH__)
  const BFloat16* row = tile + (lane % 8 + lane / 16 * 8) * kStride + lane / 8 % 2 * 8;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(SharedAddress(row)));
#else
  for (int i = 0; i < 4; ++i) {
    const BFloat16* pair = tile + (lane / 4 + i / 2 * 8) * kStride + lane % 4 * 2 + i % 2 * 8;
    words[i] = PairOf(pair[0], pair[1]);
  }
#endif
}

// As two right operands: the tile's rows are the depth, the first operand has its first 8 columns.
template <int kStride>
__device__ inline void LoadRightAcross(RightFragments& words, const BFloat16* tile) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#if defined(__CUDA_ARCH__)
  const BFloat16* row = tile + (lane % 16) * kStride + lane / 16 * 8;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(SharedAddress(row)));
#else
  for (int i = 0; i < 4; ++i) {
    const BFloat16* first = tile + (lane % 4 * 2 + i % 2 * 8) * kStride + lane / 4 + i / 2 * 8;
    words[i] = PairOf(first[0], first[kStride]);
  }
#endif
}

// Starts to copy 16 bytes to shared memory, zeros if not `exists` (`from` is then any address of the device). Both are
// aligned to 16. Done after this thread's WaitForCopies; other threads see it after a barrier behind that.
__device__ inline void StartCopy16(BFloat16* to, const BFloat16* from, bool exists) {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(SharedAddress(to)), "l"(__cvta_generic_to_global(from)), "r"(exists ? 16 : 0)
               : "memory");
#else
  for (int i = 0; i < 8; ++i) to[i] = exists ? from[i] : BFloat16{0};
#endif
}
__device__ inline void WaitForCopies() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

}  // namespace trainyard::kernels::internal
