// A matrix product on CUDA devices that needs no library and takes operands of any kind: what Gemm and its relatives
// run on the emulated device, and on a GPU where cuBLASLt has nothing for a shape or format. For <op>_cuda.cu only.
//
//   c[i,j] = alpha scale_a scale_b sum_k a(i,k) b(j,k) + beta c[i,j] + bias[j]
//
// A block computes 64 x 64 elements, 4 x 4 a thread, over steps of 32 along k in shared memory; sums are f32, one fused
// multiply-add after the other in the order of k, so the same bits in every run and for any grid.
#pragma once

#include "kernels/core/launch.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels::internal {

inline constexpr int kTileExtent = 64;
inline constexpr int kTileDepth = 32;
inline constexpr int kTileThreads = 256;

// What is added and multiplied behind the product. Scales and bias lie on the device.
template <typename C>
struct TileOutput {
  C* c = nullptr;
  int64_t rows = 0, cols = 0;
  float alpha = 1, beta = 0;
  const float* scale_a = nullptr;  // one number each, or null for 1
  const float* scale_b = nullptr;
  const float* bias_f32 = nullptr;  // at most one of the two
  const BFloat16* bias_bf16 = nullptr;

  void SetBias(const TensorView& bias) {
    if (!bias) return;
    if (bias.dtype() == DType::kF32) {
      bias_f32 = bias.as<float>();
    } else {
      bias_bf16 = bias.as<BFloat16>();
    }
  }

  __device__ float Alpha() const {
    const float a = scale_a == nullptr ? 1.0f : *scale_a;
    const float b = scale_b == nullptr ? 1.0f : *scale_b;
    return alpha * (a * b);
  }
  __device__ void Store(int64_t row, int64_t col, float factor, float sum) const {
    C& out = c[row * cols + col];
    float value = factor * sum;
    if (bias_f32 != nullptr) value += bias_f32[col];
    if (bias_bf16 != nullptr) value += ToFloat(bias_bf16[col]);
    if (beta != 0) value += beta * ToFloat(out);
    out = FromFloat<C>(value);
  }
};

// Element (row, k) of a stored float matrix: data[row * row_stride + k * depth_stride].
template <typename T>
struct StridedOperand {
  const T* data = nullptr;
  int64_t row_stride = 0, depth_stride = 0;

  __device__ bool DepthIsContiguous() const { return depth_stride == 1; }
  __device__ float operator()(int64_t row, int64_t k) const {
    return ToFloat(data[row * row_stride + k * depth_stride]);
  }
};

// rows row .. row + 63 and depths at .. at + 31 of an operand; zeros beyond its ends. Neighbouring threads read
// neighbouring elements, and no two threads of a warp write to one bank.
template <typename Operand>
__device__ inline void FillTile(float (*tile)[kTileExtent + 1], const Operand& operand, int64_t row, int64_t rows,
                                int64_t at, int64_t depth) {
  const int thread = static_cast<int>(threadIdx.x);
  const bool along_depth = operand.DepthIsContiguous();
#pragma unroll
  for (int step = 0; step < kTileExtent * kTileDepth / kTileThreads; ++step) {
    const int i = step * kTileThreads + thread;
    const int r = along_depth ? i / kTileDepth : i % kTileExtent;
    const int k = along_depth ? i % kTileDepth : i / kTileExtent;
    tile[k][r] = row + r < rows && at + k < depth ? operand(row + r, at + k) : 0.0f;
  }
}

// Adds the products of two tiles; thread (down, across) of 16 x 16 has elements (down + 16 i, across + 16 j).
__device__ inline void MultiplyTiles(const float (*a_tile)[kTileExtent + 1], const float (*b_tile)[kTileExtent + 1],
                                     float (&sums)[4][4]) {
  const int across = static_cast<int>(threadIdx.x) % 16;
  const int down = static_cast<int>(threadIdx.x) / 16;
#pragma unroll 8
  for (int k = 0; k < kTileDepth; ++k) {
    float left[4], right[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) left[i] = a_tile[k][down + 16 * i];
#pragma unroll
    for (int j = 0; j < 4; ++j) right[j] = b_tile[k][across + 16 * j];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
    }
  }
}

template <typename A, typename B, typename C>
__global__ void __launch_bounds__(kTileThreads) TiledProductKernel(A a, B b, TileOutput<C> out, int64_t depth) {
  __shared__ float a_tile[kTileDepth][kTileExtent + 1];
  __shared__ float b_tile[kTileDepth][kTileExtent + 1];
  const int across = static_cast<int>(threadIdx.x) % 16;
  const int down = static_cast<int>(threadIdx.x) / 16;
  const int64_t tiles_across = (out.cols + kTileExtent - 1) / kTileExtent;
  const int64_t tiles = (out.rows + kTileExtent - 1) / kTileExtent * tiles_across;
  const float factor = out.Alpha();
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t row = tile / tiles_across * kTileExtent;
    const int64_t col = tile % tiles_across * kTileExtent;
    float sums[4][4] = {};
    for (int64_t at = 0; at < depth; at += kTileDepth) {
      __syncthreads();  // the last step's tiles have been read
      FillTile(a_tile, a, row, out.rows, at, depth);
      FillTile(b_tile, b, col, out.cols, at, depth);
      __syncthreads();
      MultiplyTiles(a_tile, b_tile, sums);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t r = row + down + 16 * i;
        const int64_t c = col + across + 16 * j;
        if (r < out.rows && c < out.cols) out.Store(r, c, factor, sums[i][j]);
      }
    }
  }
}

template <typename A, typename B, typename C>
void LaunchTiledProduct(const A& a, const B& b, const TileOutput<C>& out, int64_t depth, Stream& stream) {
  if (out.rows == 0 || out.cols == 0) return;
  const int64_t tiles_across = (out.cols + kTileExtent - 1) / kTileExtent;
  const int64_t tiles = (out.rows + kTileExtent - 1) / kTileExtent * tiles_across;
  Launch(stream, RowGrid(tiles, kTileThreads), TiledProductKernel<A, B, C>, a, b, out, depth);
}

}  // namespace trainyard::kernels::internal
