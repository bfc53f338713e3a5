// The tangent of attention: a block a tile of 64 queries of one head, up to 128 columns of its output, and one tangent,
// which meets the keys up to its own 64 at a time. The primal and its log-sum-exps come from AttentionForward. With
// P the weights and any number c of a row,
//
//   o. = sum_s P_s (z._s - c) v_s + sum_s P_s v._s - (sum_s P_s (z._s - c)) o
//
// which one pass over the keys computes. c is the mean of the row's z. in the first tile of keys: random directions
// make z. large beside its differences, and the two sums would cancel.
#include "kernels/attention/attention_internal.h"
#include "kernels/attention/attention_tiles.h"
#include "kernels/core/block_reduce.h"
#include "kernels/core/math.h"
#include "kernels/tangent/tangent_ops_internal.h"

namespace trainyard::kernels::internal {
namespace {

struct TangentTensors {
  const float* qkv;  // (1 + tangents, rows, packed width)
  const float* lse;  // (q heads, rows)
  const float* o;    // (rows, width): the primal
  float* o_dots;     // (tangents, rows, width)
};

template <int kCols>
__global__ void __launch_bounds__(kTileThreads)
    AttentionTangentKernel(const HeadLayout heads, const TangentTensors tensors, float scale) {
  __shared__ float weights[kTileExtent][kTileExtent + 1];
  __shared__ float scratch[kTileScratch];
  const int across = static_cast<int>(threadIdx.x) % 16;
  const int down = static_cast<int>(threadIdx.x) / 16;
  // The later a tile of queries, the more keys it meets: those first, so that blocks end together.
  const int64_t q_tiles = (heads.seq + kTileExtent - 1) / kTileExtent;
  const int64_t q_begin = (q_tiles - 1 - blockIdx.x / heads.q_heads) * kTileExtent;
  const int64_t head = blockIdx.x % heads.q_heads;
  const int64_t first_col = int64_t{blockIdx.y} * kCols;
  const int64_t tangent = blockIdx.z;
  const int64_t k_head = heads.q_heads + heads.KvHead(head), v_head = k_head + heads.kv_heads;
  const float* const packed = tensors.qkv;
  const float* const packed_dot = packed + (1 + tangent) * heads.seq * heads.packed_width;
  const HeadTile<const float> q = PackedTile(heads, packed, 0, head, q_begin);
  const HeadTile<const float> q_dot = PackedTile(heads, packed_dot, 0, head, q_begin);

  float lse[4], origin[4] = {}, mean[4] = {};
  float sums[4][kCols / 16] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t query = q_begin + down + 16 * i;
    lse[i] = query < heads.seq ? tensors.lse[head * heads.seq + query] : 0.0f;
  }
  for (int64_t k_begin = 0; k_begin <= q_begin; k_begin += kTileExtent) {
    const HeadTile<const float> k = PackedTile(heads, packed, 0, k_head, k_begin);
    TileValues scores = {}, dots = {};
    AddRowProducts(scratch, q, k, heads.head_dim, scores);
    AddRowProducts(scratch, q_dot, k, heads.head_dim, dots);
    AddRowProducts(scratch, q, PackedTile(heads, packed_dot, 0, k_head, k_begin), heads.head_dim, dots);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t query = q_begin + down + 16 * i;
      bool is_seen[4];
      float sum = 0, count = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t key = k_begin + across + 16 * j;
        is_seen[j] = key <= query && key < heads.seq;
        dots[i][j] *= scale;
        sum += is_seen[j] ? dots[i][j] : 0.0f;
        count += is_seen[j] ? 1.0f : 0.0f;
      }
      if (k_begin == 0) origin[i] = RowReduce(sum, Sum()) / RowReduce(count, Sum());
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float weight = is_seen[j] ? FastExp(scores[i][j] * scale - lse[i]) : 0.0f;
        const float product = is_seen[j] ? weight * (dots[i][j] - origin[i]) : 0.0f;
        mean[i] += product;
        scores[i][j] = weight;
        weights[down + 16 * i][across + 16 * j] = product;
      }
    }
    AddWeightedRows<kCols, false>(weights, scratch, PackedTile(heads, packed, 0, v_head, k_begin), first_col,
                                  heads.head_dim, sums);
    __syncthreads();  // the products have been read
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) weights[down + 16 * i][across + 16 * j] = scores[i][j];
    }
    AddWeightedRows<kCols, false>(weights, scratch, PackedTile(heads, packed_dot, 0, v_head, k_begin), first_col,
                                  heads.head_dim, sums);
  }

  const HeadTile<const float> o = OutputTile(heads, tensors.o, 0, head, q_begin);
  const HeadTile<float> o_dot = OutputTile(heads, tensors.o_dots + tangent * heads.seq * o.stride, 0, head, q_begin);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float row_mean = RowReduce(mean[i], Sum());
    const int r = down + 16 * i;
#pragma unroll
    for (int c = 0; c < kCols / 16; ++c) {
      const int64_t col = first_col + across + 16 * c;
      if (r >= o.rows || col >= heads.head_dim) continue;
      o_dot.data[r * o.stride + col] = sums[i][c] - row_mean * o.data[r * o.stride + col];
    }
  }
}

template <int kCols>
void LaunchTangent(const HeadLayout& heads, const TangentTensors& tensors, float scale, int64_t tangents,
                   Stream& stream) {
  const int64_t q_tiles = (heads.seq + kTileExtent - 1) / kTileExtent;
  Grid grid = {.blocks = heads.q_heads * q_tiles, .threads = kTileThreads};
  grid.blocks_y = (heads.head_dim + kCols - 1) / kCols;
  grid.blocks_z = tangents;
  Launch(stream, grid, AttentionTangentKernel<kCols>, heads, tensors, scale);
}

}  // namespace

void AttentionTangentCuda(const AttentionTangentArgs<float>& args, Stream& stream) {
  if (args.o.part_size() == 0) return;
  const Dual<float>&qkv = args.qkv, &o = args.o;
  AttentionForwardArgs primal;
  primal.shape = {.batch = 1,
                  .seq = qkv.rows,
                  .q_heads = args.q_heads,
                  .kv_heads = args.kv_heads,
                  .head_dim = args.head_dim,
                  .kv_of_head = args.kv_of_head};
  primal.qkv = {qkv.value(), DType::kF32, {qkv.rows, qkv.cols}};
  primal.o = {o.value(), DType::kF32, {o.rows, o.cols}};
  primal.lse = {args.lse, DType::kF32, {args.q_heads, qkv.rows}};
  AttentionForwardCuda(primal, stream);
  if (o.tangents == 0) return;
  const TangentTensors tensors = {.qkv = qkv.data, .lse = args.lse, .o = o.value(), .o_dots = o.tangent(0)};
  const HeadLayout heads = LayoutOf(primal.shape);
  const float scale = DeviceScoreScale(0.0f, primal.shape);
  if (args.head_dim <= 64) {
    LaunchTangent<64>(heads, tensors, scale, o.tangents, stream);
  } else {
    LaunchTangent<128>(heads, tensors, scale, o.tangents, stream);
  }
}

}  // namespace trainyard::kernels::internal
