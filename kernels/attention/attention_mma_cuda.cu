// The forward of attention on tensor cores: a block a tile of 64 queries of one head, which meets keys 64 at a time.
// The weights exp(s - max) are rounded to bf16 before they meet the values; all sums are f32. While scores are computed
// the values come in, while they are used the next keys.
#include <limits>

#include "kernels/attention/attention_mma.h"
#include "kernels/core/block_reduce.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kKeys = 64;

template <int kDim>
__global__ void __launch_bounds__(kMmaThreads) MmaForwardKernel(const HeadLayout heads, const BFloat16* qkv,
                                                                BFloat16* o, float* lse, float scale, uint32_t* amax) {
  alignas(16) __shared__ BFloat16 k_tile[kKeys * kMmaStride<kDim>];
  alignas(16) __shared__ BFloat16 v_tile[kKeys * kMmaStride<kDim>];
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_row = static_cast<int>(threadIdx.x) / 32 * 16;  // of this warp
  const int64_t width = heads.head_dim;
  const int64_t sequences = heads.batch * heads.q_heads;
  const int64_t q_tiles = (heads.seq + kMmaRows - 1) / kMmaRows;
  const int64_t q_begin = (q_tiles - 1 - blockIdx.x / sequences) * kMmaRows;  // the longest first
  const int64_t b = blockIdx.x % sequences / heads.q_heads;
  const int64_t head = blockIdx.x % heads.q_heads;
  const int64_t k_head = heads.q_heads + heads.KvHead(head);
  const int64_t v_head = k_head + heads.kv_heads;

  LeftFragment q[kDim / 16];
  StartTileCopy<kDim, kMmaRows>(k_tile, PackedTile(heads, qkv, b, head, q_begin), width);
  WaitForCopies();
  __syncthreads();
  LoadLeftRows<kDim>(q, k_tile + first_row * kMmaStride<kDim>);
  __syncthreads();
  StartTileCopy<kDim, kKeys>(k_tile, PackedTile(heads, qkv, b, k_head, 0), width);

  SumFragment sums[kDim / 8] = {};
  float max[2] = {kNothing, kNothing};
  float sum[2] = {0.0f, 0.0f};
  for (int64_t k_begin = 0; k_begin <= q_begin; k_begin += kKeys) {
    WaitForCopies();
    __syncthreads();  // the keys are here, and the last values have been used
    StartTileCopy<kDim, kKeys>(v_tile, PackedTile(heads, qkv, b, v_head, k_begin), width);
    SumFragment scores[kKeys / 8] = {};
    MultiplyByRows<kDim>(scores, q, k_tile);
    WaitForCopies();
    __syncthreads();  // the values are here, and the keys have been used
    if (k_begin < q_begin) {
      StartTileCopy<kDim, kKeys>(k_tile, PackedTile(heads, qkv, b, k_head, k_begin + kKeys), width);
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t query = q_begin + first_row + lane / 4 + 8 * half;
      float row_max = max[half];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          const int64_t key = k_begin + 8 * n + lane % 4 * 2 + e % 2;
          scores[n][e] = key <= query && key < heads.seq ? scores[n][e] * scale : kNothing;
          row_max = Max()(row_max, scores[n][e]);
        }
      }
      row_max = QuadReduce(row_max, Max());  // the first tile's first key is not masked: finite
      float row_sum = 0;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          scores[n][e] = WeightExp(scores[n][e] - row_max);
          row_sum += scores[n][e];
        }
      }
      const float factor = WeightExp(max[half] - row_max);
      sum[half] = sum[half] * factor + row_sum;  // of this lane's columns; the four lanes' are added at the end
      max[half] = row_max;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        sums[d][2 * half] *= factor;
        sums[d][2 * half + 1] *= factor;
      }
    }
    AddWeighted<kDim>(sums, scores, v_tile);
  }

  float factors[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = QuadReduce(sum[half], Sum());
    factors[half] = 1.0f / total;
    const int64_t query = q_begin + first_row + lane / 4 + 8 * half;
    if (lane % 4 == 0 && query < heads.seq) {
      lse[(b * heads.q_heads + head) * heads.seq + query] = max[half] + logf(total);
    }
  }
  const uint32_t largest = StoreSums<kDim>(sums, factors, OutputTile(heads, o, b, head, q_begin), first_row, width);
  RaiseAmax<kMmaThreads>(largest, amax);
}

template <int kDim>
void Forward(const AttentionForwardArgs& args, uint32_t* amax, Stream& stream) {
  const AttentionShape& shape = args.shape;
  const int64_t q_tiles = (shape.seq + kMmaRows - 1) / kMmaRows;
  Launch(stream, {.blocks = shape.batch * shape.q_heads * q_tiles, .threads = kMmaThreads}, MmaForwardKernel<kDim>,
         LayoutOf(shape), args.qkv.as<BFloat16>(), args.o.as<BFloat16>(), args.lse.as<float>(),
         DeviceScoreScale(args.scale, shape), amax);
}

}  // namespace

bool AttentionForwardMma(const AttentionForwardArgs& args, uint32_t* amax, Stream& stream) {
  if (!FitsTensorCores(args.shape, args.qkv.dtype())) return false;
  if (!IsAlignedTo16(args.qkv.data()) || !IsAlignedTo16(args.o.data())) return false;
  if (args.shape.head_dim <= 64) {
    Forward<64>(args, amax, stream);
  } else {
    Forward<128>(args, amax, stream);
  }
  return true;
}

}  // namespace trainyard::kernels::internal
