// The backward of attention, and its kernels for any dtype and head_dim (the formulas: attention_backward_cpu.cc).
// Scores are computed twice: once by blocks that own a tile of keys and sum dk and dv over queries and the heads of the
// group, once by blocks that own a tile of queries and sum dq over keys. So no two blocks add to one number and the
// order of all sums follows from the shape.
#include "kernels/attention/attention_mma.h"
#include "kernels/core/block_reduce.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/math.h"

namespace trainyard::kernels::internal {
namespace {

// dots[b, head, t] = dout . o; a warp each.
template <typename T>
__global__ void DotsKernel(const T* dout, const T* o, float* dots, int64_t rows, int64_t seq, int64_t q_heads,
                           int64_t width) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t row = GlobalThread() / 32; row < rows; row += GlobalThreads() / 32) {
    float sum = 0;
    for (int64_t c = lane; c < width; c += 32) {
      sum = fmaf(ToFloat(dout[row * width + c]), ToFloat(o[row * width + c]), sum);
    }
    sum = WarpReduce(sum, Sum());
    const int64_t token = row / q_heads;
    if (lane == 0) dots[(token / seq * q_heads + row % q_heads) * seq + token % seq] = sum;
  }
}

template <typename T>
struct BackwardTensors {
  const T* qkv;
  const T* dout;
  const float* lse;
  const float* dots;
  T* dqkv;
  float scale;
};

// Scores of a tile become weights, exp(scale s - lse); those masked or beyond the sequence 0.
__device__ inline void ScoresToWeights(TileValues& scores, const float* lse, int64_t q_begin, int64_t k_begin,
                                       int64_t seq, float scale) {
  const int across = static_cast<int>(threadIdx.x) % 16;
  const int down = static_cast<int>(threadIdx.x) / 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t query = q_begin + down + 16 * i;
    const float row_lse = query < seq ? lse[query] : 0.0f;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t key = k_begin + across + 16 * j;
      scores[i][j] = key <= query && query < seq ? FastExp(scores[i][j] * scale - row_lse) : 0.0f;
    }
  }
}

// scale * weight * (dp - dots), the gradient of a score before its scale.
__device__ inline void ScoreGradients(const TileValues& weights, TileValues& dp, const float* dots, int64_t q_begin,
                                      int64_t seq, float scale) {
  const int down = static_cast<int>(threadIdx.x) / 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t query = q_begin + down + 16 * i;
    const float dot = query < seq ? dots[query] : 0.0f;
#pragma unroll
    for (int j = 0; j < 4; ++j) dp[i][j] = weights[i][j] * (dp[i][j] - dot) * scale;
  }
}

__device__ inline void WriteShared(const TileValues& values, float (*tile)[kTileExtent + 1]) {
  const int across = static_cast<int>(threadIdx.x) % 16;
  const int down = static_cast<int>(threadIdx.x) / 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) tile[down + 16 * i][across + 16 * j] = values[i][j];
  }
}

template <typename T, int kCols>
__global__ void __launch_bounds__(kTileThreads) KeysKernel(const HeadLayout heads, const BackwardTensors<T> x) {
  __shared__ float tile[kTileExtent][kTileExtent + 1];
  __shared__ float scratch[kTileScratch];
  // The earlier a tile of keys, the more queries it meets.
  const int64_t sequences = heads.batch * heads.kv_heads;
  const int64_t k_begin = blockIdx.x / sequences * kTileExtent;
  const int64_t b = blockIdx.x % sequences / heads.kv_heads;
  const int64_t kv_head = blockIdx.x % heads.kv_heads;
  const int64_t k_head = heads.q_heads + kv_head;
  const int64_t v_head = k_head + heads.kv_heads;
  const int64_t first_col = int64_t{blockIdx.y} * kCols;
  const int64_t width = heads.head_dim;
  const HeadTile<const T> k = PackedTile(heads, x.qkv, b, k_head, k_begin);
  const HeadTile<const T> v = PackedTile(heads, x.qkv, b, v_head, k_begin);

  float dk[4][kCols / 16] = {};
  float dv[4][kCols / 16] = {};
  for (int64_t head = 0; head < heads.q_heads; ++head) {
    if (heads.KvHead(head) != kv_head) continue;
    const float* lse = x.lse + (b * heads.q_heads + head) * heads.seq;
    const float* dots = x.dots + (b * heads.q_heads + head) * heads.seq;
    for (int64_t q_begin = k_begin; q_begin < heads.seq; q_begin += kTileExtent) {
      const HeadTile<const T> q = PackedTile(heads, x.qkv, b, head, q_begin);
      const HeadTile<const T> dout = OutputTile(heads, x.dout, b, head, q_begin);
      TileValues weights = {};
      AddRowProducts(scratch, q, k, width, weights);
      ScoresToWeights(weights, lse, q_begin, k_begin, heads.seq, x.scale);
      WriteShared(weights, tile);
      AddWeightedRows<kCols, true>(tile, scratch, dout, first_col, width, dv);
      TileValues gradients = {};
      AddRowProducts(scratch, dout, v, width, gradients);
      ScoreGradients(weights, gradients, dots, q_begin, heads.seq, x.scale);
      WriteShared(gradients, tile);
      AddWeightedRows<kCols, true>(tile, scratch, q, first_col, width, dk);
    }
  }
  const float ones[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  StoreTile<kCols>(dk, ones, PackedTile(heads, x.dqkv, b, k_head, k_begin), first_col, width);
  StoreTile<kCols>(dv, ones, PackedTile(heads, x.dqkv, b, v_head, k_begin), first_col, width);
}

template <typename T, int kCols>
__global__ void __launch_bounds__(kTileThreads) QueriesKernel(const HeadLayout heads, const BackwardTensors<T> x) {
  __shared__ float tile[kTileExtent][kTileExtent + 1];
  __shared__ float scratch[kTileScratch];
  const int64_t sequences = heads.batch * heads.q_heads;
  const int64_t q_tiles = (heads.seq + kTileExtent - 1) / kTileExtent;
  const int64_t q_begin = (q_tiles - 1 - blockIdx.x / sequences) * kTileExtent;
  const int64_t b = blockIdx.x % sequences / heads.q_heads;
  const int64_t head = blockIdx.x % heads.q_heads;
  const int64_t k_head = heads.q_heads + heads.KvHead(head);
  const int64_t v_head = k_head + heads.kv_heads;
  const int64_t first_col = int64_t{blockIdx.y} * kCols;
  const int64_t width = heads.head_dim;
  const HeadTile<const T> q = PackedTile(heads, x.qkv, b, head, q_begin);
  const HeadTile<const T> dout = OutputTile(heads, x.dout, b, head, q_begin);
  const float* lse = x.lse + (b * heads.q_heads + head) * heads.seq;
  const float* dots = x.dots + (b * heads.q_heads + head) * heads.seq;

  float dq[4][kCols / 16] = {};
  for (int64_t k_begin = 0; k_begin <= q_begin; k_begin += kTileExtent) {
    const HeadTile<const T> k = PackedTile(heads, x.qkv, b, k_head, k_begin);
    TileValues weights = {};
    AddRowProducts(scratch, q, k, width, weights);
    ScoresToWeights(weights, lse, q_begin, k_begin, heads.seq, x.scale);
    TileValues gradients = {};
    AddRowProducts(scratch, dout, PackedTile(heads, x.qkv, b, v_head, k_begin), width, gradients);
    ScoreGradients(weights, gradients, dots, q_begin, heads.seq, x.scale);
    WriteShared(gradients, tile);
    AddWeightedRows<kCols, false>(tile, scratch, k, first_col, width, dq);
  }
  const float ones[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  StoreTile<kCols>(dq, ones, PackedTile(heads, x.dqkv, b, head, q_begin), first_col, width);
}

template <typename T, int kCols>
void Backward(const AttentionShape& shape, const BackwardTensors<T>& tensors, Stream& stream) {
  const int64_t tiles = (shape.seq + kTileExtent - 1) / kTileExtent;
  const HeadLayout heads = LayoutOf(shape);
  Grid grid = {.blocks = shape.batch * shape.kv_heads * tiles, .threads = kTileThreads};
  grid.blocks_y = (shape.head_dim + kCols - 1) / kCols;
  Launch(stream, grid, KeysKernel<T, kCols>, heads, tensors);
  grid.blocks = shape.batch * shape.q_heads * tiles;
  Launch(stream, grid, QueriesKernel<T, kCols>, heads, tensors);
}

}  // namespace

void AttentionBackwardCuda(const AttentionBackwardArgs& args, Stream& stream) {
  const AttentionShape& shape = args.shape;
  if (shape.batch == 0 || shape.seq == 0) return;
  float* dots = static_cast<float*>(args.workspace.data());
  const int64_t rows = shape.batch * shape.seq * shape.q_heads;
  DispatchFloat(args.qkv.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Launch(stream, ElementwiseGrid(32 * rows), DotsKernel<T>, args.dout.as<T>(), args.o.as<T>(), dots, rows, shape.seq,
           shape.q_heads, shape.head_dim);
    if (AttentionBackwardMma(args, dots, stream)) return;
    const BackwardTensors<T> tensors = {args.qkv.as<T>(),     args.dout.as<T>(),
                                        args.lse.as<float>(), dots,
                                        args.dqkv.as<T>(),    DeviceScoreScale(args.scale, shape)};
    if (shape.head_dim <= 64) {
      Backward<T, 64>(shape, tensors, stream);
    } else {
      Backward<T, 128>(shape, tensors, stream);
    }
  });
}

}  // namespace trainyard::kernels::internal
