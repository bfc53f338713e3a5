// The forward of attention, and its kernel for any dtype and head_dim: a block a tile of 64 queries of one head and up
// to 128 columns of its output, which meets the keys up to its own 64 at a time.
#include <limits>

#include "kernels/attention/attention_mma.h"
#include "kernels/core/block_reduce.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/math.h"

namespace trainyard::kernels::internal {
namespace {

template <typename T, int kCols>
__global__ void __launch_bounds__(kTileThreads)
    ForwardKernel(const HeadLayout heads, const T* qkv, T* o, float* lse, float scale, uint32_t* amax) {
  __shared__ float weights[kTileExtent][kTileExtent + 1];
  __shared__ float scratch[kTileScratch];
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const int across = static_cast<int>(threadIdx.x) % 16;
  const int down = static_cast<int>(threadIdx.x) / 16;
  // The later a tile of queries, the more keys it meets: those first, so that blocks end together.
  const int64_t sequences = heads.batch * heads.q_heads;
  const int64_t q_tiles = (heads.seq + kTileExtent - 1) / kTileExtent;
  const int64_t q_begin = (q_tiles - 1 - blockIdx.x / sequences) * kTileExtent;
  const int64_t b = blockIdx.x % sequences / heads.q_heads;
  const int64_t head = blockIdx.x % heads.q_heads;
  const int64_t first_col = int64_t{blockIdx.y} * kCols;
  const int64_t k_head = heads.q_heads + heads.KvHead(head);
  const HeadTile<const T> q = PackedTile(heads, qkv, b, head, q_begin);

  float max[4], sum[4];
  float sums[4][kCols / 16] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    max[i] = kNothing;
    sum[i] = 0;
  }
  for (int64_t k_begin = 0; k_begin <= q_begin; k_begin += kTileExtent) {
    TileValues scores = {};
    AddRowProducts(scratch, q, PackedTile(heads, qkv, b, k_head, k_begin), heads.head_dim, scores);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t query = q_begin + down + 16 * i;
      float row_max = max[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t key = k_begin + across + 16 * j;
        scores[i][j] = key <= query && key < heads.seq ? scores[i][j] * scale : kNothing;
        row_max = Max()(row_max, scores[i][j]);
      }
      row_max = RowReduce(row_max, Max());  // at least one key of the first tile is not masked: finite from then on
      float row_sum = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float weight = FastExp(scores[i][j] - row_max);
        weights[down + 16 * i][across + 16 * j] = weight;
        row_sum += weight;
      }
      const float factor = FastExp(max[i] - row_max);
      sum[i] = sum[i] * factor + RowReduce(row_sum, Sum());
      max[i] = row_max;
#pragma unroll
      for (int c = 0; c < kCols / 16; ++c) sums[i][c] *= factor;
    }
    AddWeightedRows<kCols, false>(weights, scratch, PackedTile(heads, qkv, b, k_head + heads.kv_heads, k_begin),
                                  first_col, heads.head_dim, sums);
  }

  float factors[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    factors[i] = 1.0f / sum[i];
    const int64_t query = q_begin + down + 16 * i;
    if (across == 0 && blockIdx.y == 0 && query < heads.seq) {
      lse[(b * heads.q_heads + head) * heads.seq + query] = max[i] + logf(sum[i]);
    }
  }
  const uint32_t largest =
      StoreTile<kCols>(sums, factors, OutputTile(heads, o, b, head, q_begin), first_col, heads.head_dim);
  RaiseAmax<kTileThreads>(largest, amax);
}

template <typename T, int kCols>
void Forward(const AttentionForwardArgs& args, uint32_t* amax, Stream& stream) {
  const AttentionShape& shape = args.shape;
  const int64_t q_tiles = (shape.seq + kTileExtent - 1) / kTileExtent;
  Grid grid = {.blocks = shape.batch * shape.q_heads * q_tiles, .threads = kTileThreads};
  grid.blocks_y = (shape.head_dim + kCols - 1) / kCols;
  Launch(stream, grid, ForwardKernel<T, kCols>, LayoutOf(shape), args.qkv.as<T>(), args.o.as<T>(), args.lse.as<float>(),
         DeviceScoreScale(args.scale, shape), amax);
}

}  // namespace

void AttentionForwardCuda(const AttentionForwardArgs& args, Stream& stream) {
  uint32_t* const amax = StartAmax(args.amax, stream);
  if (args.shape.batch == 0 || args.shape.seq == 0) return;
  if (AttentionForwardMma(args, amax, stream)) return;
  DispatchFloat(args.qkv.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (args.shape.head_dim <= 64) {
      Forward<T, 64>(args, amax, stream);
    } else {
      Forward<T, 128>(args, amax, stream);
    }
  });
}

}  // namespace trainyard::kernels::internal
