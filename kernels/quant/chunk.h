// For <op>_cuda.cu: a few neighbouring elements a thread, loaded and stored 16 bytes at a time where they lie aligned
// and one by one where not. Whether a tensor is f32 or bf16 is a branch that all threads take alike, so one kernel
// serves both.
//
// Quantizers give the CPU's bits, but for those inside a NaN: which NaN an operation makes is the device's choice.
#pragma once

#include "kernels/core/dtype.h"
#include "kernels/core/launch.h"
#include "kernels/core/philox.h"
#include "kernels/core/tensor.h"
#include "kernels/core/vec.h"

namespace trainyard::kernels::internal {

// Elements that one access moves.
template <typename T, int kCount>
inline constexpr int kPackCount = sizeof(T) * kCount > kVecBytes ? static_cast<int>(kVecBytes / sizeof(T)) : kCount;

template <typename P>
__device__ inline bool IsAligned(const void* memory) {
  return reinterpret_cast<uintptr_t>(memory) % alignof(P) == 0;
}

// to[0 .. kCount-1] from the `count` elements there are (kCount or more: all); zeros behind them.
template <int kCount, typename T>
__device__ inline void LoadChunk(const T* from, int64_t count, T* to) {
  constexpr int kStep = kPackCount<T, kCount>;
  if (count >= kCount && IsAligned<Vec<T, kStep>>(from)) {
    TY_UNROLL
    for (int i = 0; i < kCount; i += kStep) {
      const Vec<T, kStep> vec = LoadVec<kStep>(from + i);
      TY_UNROLL
      for (int j = 0; j < kStep; ++j) to[i + j] = vec[j];
    }
    return;
  }
  TY_UNROLL
  for (int i = 0; i < kCount; ++i) to[i] = i < count ? from[i] : T{};
}

template <int kCount, typename T>
__device__ inline void StoreChunk(const T* from, int64_t count, T* to) {
  constexpr int kStep = kPackCount<T, kCount>;
  if (count >= kCount && IsAligned<Vec<T, kStep>>(to)) {
    TY_UNROLL
    for (int i = 0; i < kCount; i += kStep) {
      Vec<T, kStep> vec;
      TY_UNROLL
      for (int j = 0; j < kStep; ++j) vec[j] = from[i + j];
      StoreVec(to + i, vec);
    }
    return;
  }
  TY_UNROLL
  for (int i = 0; i < kCount; ++i) {
    if (i < count) to[i] = from[i];
  }
}

// A tensor of f32 or bf16, or none.
struct Floats {
  void* data = nullptr;
  bool is_bf16 = false;

  Floats() = default;
  Floats(const TensorView& x) : data(x.data()), is_bf16(x.dtype() == DType::kBF16) {  // NOLINT: reads like the tensor
    TY_CHECK(!x || is_bf16 || x.dtype() == DType::kF32);
  }
};

// Elements first .. first + kCount - 1, of which there are `count`.
template <int kCount>
__device__ inline void Load(const Floats& x, int64_t first, int64_t count, float* to) {
  if (!x.is_bf16) return LoadChunk<kCount>(static_cast<const float*>(x.data) + first, count, to);
  BFloat16 stored[kCount];
  LoadChunk<kCount>(static_cast<const BFloat16*>(x.data) + first, count, stored);
  TY_UNROLL
  for (int i = 0; i < kCount; ++i) to[i] = ToFloat(stored[i]);
}

template <int kCount>
__device__ inline void Store(const float* values, const Floats& y, int64_t first, int64_t count) {
  if (!y.is_bf16) return StoreChunk<kCount>(values, count, static_cast<float*>(y.data) + first);
  BFloat16 stored[kCount];
  TY_UNROLL
  for (int i = 0; i < kCount; ++i) stored[i] = FromFloat<BFloat16>(values[i]);
  StoreChunk<kCount>(stored, count, static_cast<BFloat16*>(y.data) + first);
}

// RandomWord of elements first .. first + 3: one call of the generator where `first` is a multiple of four.
__device__ inline void FourWords(const PhiloxKey& key, int64_t first, uint32_t* words) {
  if ((first & 3) == 0) {
    const std::array<uint32_t, 4> four = RandomBlock(key, static_cast<uint32_t>(first >> 2));
    for (int i = 0; i < 4; ++i) words[i] = four[static_cast<size_t>(i)];
    return;
  }
  for (int i = 0; i < 4; ++i) words[i] = RandomWord(key, static_cast<uint64_t>(first + i));
}

// For kernels that go over the chunks of rows with blockIdx.x and over rows with blockIdx.y, both with strides: rows
// need not begin aligned, and nothing is divided.
inline Grid RowChunkGrid(int64_t rows, int64_t chunks_a_row) {
  constexpr int64_t kMaxThreads = 256, kMaxBlocks = 132 * 16, kMaxBlocksY = 65535;
  const int64_t warps = (chunks_a_row + 31) / 32 * 32;
  const int64_t threads = warps < 32 ? 32 : warps > kMaxThreads ? kMaxThreads : warps;
  const int64_t blocks = (chunks_a_row + threads - 1) / threads;
  return {.blocks = blocks < 1            ? 1
                    : blocks > kMaxBlocks ? kMaxBlocks
                                          : blocks,
          .threads = static_cast<int>(threads),
          .blocks_y = rows < 1             ? 1
                      : rows > kMaxBlocksY ? kMaxBlocksY
                                           : rows};
}

// Calls body(row, first column, columns from there to the row's end) for every chunk of kCount columns.
template <int kCount, typename Body>
__device__ inline void ForRowChunks(int64_t rows, int64_t cols, const Body& body) {
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    for (int64_t first = GlobalThread() * kCount; first < cols; first += GlobalThreads() * kCount) {
      body(row, first, cols - first);
    }
  }
}

}  // namespace trainyard::kernels::internal
