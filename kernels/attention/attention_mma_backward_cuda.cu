// The backward of attention on tensor cores, in the two passes of attention_backward_cuda.cu. Scores are computed with
// the owned rows as the left operand (transposed for keys), so that weights and score gradients, which are rounded to
// bf16 for their products, go from the sums of one product to the left operand of the next without leaving registers.
// Tiles of the other side have 32 rows, so that sums of 128 columns fit the registers, in two buffers.
#include "kernels/attention/attention_mma.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kOther = 32;  // rows of the side that comes in

struct MmaBackwardTensors {
  const BFloat16* qkv;
  const BFloat16* dout;
  const float* lse;
  const float* dots;
  BFloat16* dqkv;
  float scale;
};

// Where a block of keys is on its way through the queries of the heads that read them.
struct QueryStep {
  int64_t head, q_begin;
};
__device__ inline int64_t NextReader(const HeadLayout& heads, int64_t head, int64_t kv_head) {
  do ++head;
  while (head < heads.q_heads && heads.KvHead(head) != kv_head);
  return head;
}

template <int kDim>
__global__ void __launch_bounds__(kMmaThreads) MmaKeysKernel(const HeadLayout heads, const MmaBackwardTensors x) {
  constexpr int kOwned = kMmaRows * kMmaStride<kDim>;
  constexpr int kIncoming = kOther * kMmaStride<kDim>;
  BFloat16* const k_tile = SharedMemory<BFloat16>();
  BFloat16* const v_tile = k_tile + kOwned;
  BFloat16* const q_tiles = v_tile + kOwned;
  BFloat16* const dout_tiles = q_tiles + 2 * kIncoming;
  __shared__ float lse_tiles[2][kOther];
  __shared__ float dots_tiles[2][kOther];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int first_row = thread / 32 * 16;
  const int64_t width = heads.head_dim;
  const int64_t sequences = heads.batch * heads.kv_heads;
  const int64_t k_begin = blockIdx.x / sequences * kMmaRows;  // the longest first
  const int64_t b = blockIdx.x % sequences / heads.kv_heads;
  const int64_t kv_head = blockIdx.x % heads.kv_heads;
  const int64_t k_head = heads.q_heads + kv_head;
  const int64_t v_head = k_head + heads.kv_heads;

  const auto start = [&](const QueryStep& step, int buffer) {
    StartTileCopy<kDim, kOther>(q_tiles + buffer * kIncoming, PackedTile(heads, x.qkv, b, step.head, step.q_begin),
                                width);
    StartTileCopy<kDim, kOther>(dout_tiles + buffer * kIncoming, OutputTile(heads, x.dout, b, step.head, step.q_begin),
                                width);
    if (thread < kOther) {
      const int64_t query = step.q_begin + thread;
      const int64_t at = (b * heads.q_heads + step.head) * heads.seq + query;
      lse_tiles[buffer][thread] = query < heads.seq ? x.lse[at] : 0.0f;
      dots_tiles[buffer][thread] = query < heads.seq ? x.dots[at] : 0.0f;
    }
  };

  SumFragment dk[kDim / 8] = {};
  SumFragment dv[kDim / 8] = {};
  QueryStep step = {NextReader(heads, -1, kv_head), k_begin};
  StartTileCopy<kDim, kMmaRows>(k_tile, PackedTile(heads, x.qkv, b, k_head, k_begin), width);
  StartTileCopy<kDim, kMmaRows>(v_tile, PackedTile(heads, x.qkv, b, v_head, k_begin), width);
  if (step.head < heads.q_heads) start(step, 0);
  for (int buffer = 0; step.head < heads.q_heads; buffer ^= 1) {
    QueryStep next = {step.head, step.q_begin + kOther};
    if (next.q_begin >= heads.seq) next = {NextReader(heads, step.head, kv_head), k_begin};
    WaitForCopies();
    __syncthreads();  // this step's rows are here, and those of the other buffer have been used
    if (next.head < heads.q_heads) start(next, buffer ^ 1);

    const BFloat16* q = q_tiles + buffer * kIncoming;
    const BFloat16* dout = dout_tiles + buffer * kIncoming;
    SumFragment weights[kOther / 8] = {};
    {
      LeftFragment k[kDim / 16];
      LoadLeftRows<kDim>(k, k_tile + first_row * kMmaStride<kDim>);
      MultiplyByRows<kDim>(weights, k, q);
    }
#pragma unroll
    for (int n = 0; n < kOther / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t key = k_begin + first_row + lane / 4 + e / 2 * 8;
        const int col = 8 * n + lane % 4 * 2 + e % 2;
        const int64_t query = step.q_begin + col;
        weights[n][e] =
            key <= query && query < heads.seq ? WeightExp(weights[n][e] * x.scale - lse_tiles[buffer][col]) : 0.0f;
      }
    }
    AddWeighted<kDim>(dv, weights, dout);
    SumFragment gradients[kOther / 8] = {};
    {
      LeftFragment v[kDim / 16];
      LoadLeftRows<kDim>(v, v_tile + first_row * kMmaStride<kDim>);
      MultiplyByRows<kDim>(gradients, v, dout);
    }
#pragma unroll
    for (int n = 0; n < kOther / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int col = 8 * n + lane % 4 * 2 + e % 2;
        gradients[n][e] = weights[n][e] * (gradients[n][e] - dots_tiles[buffer][col]) * x.scale;
      }
    }
    AddWeighted<kDim>(dk, gradients, q);
    step = next;
  }
  WaitForCopies();  // of keys that nobody reads
  const float ones[2] = {1.0f, 1.0f};
  StoreSums<kDim>(dk, ones, PackedTile(heads, x.dqkv, b, k_head, k_begin), first_row, width);
  StoreSums<kDim>(dv, ones, PackedTile(heads, x.dqkv, b, v_head, k_begin), first_row, width);
}

template <int kDim>
__global__ void __launch_bounds__(kMmaThreads) MmaQueriesKernel(const HeadLayout heads, const MmaBackwardTensors x) {
  constexpr int kIncoming = kOther * kMmaStride<kDim>;
  static_assert(2 * kOther == kMmaRows);  // the two buffers first hold the block's own rows
  alignas(16) __shared__ BFloat16 k_tiles[2 * kIncoming];
  alignas(16) __shared__ BFloat16 v_tiles[2 * kIncoming];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_row = static_cast<int>(threadIdx.x) / 32 * 16;
  const int64_t width = heads.head_dim;
  const int64_t sequences = heads.batch * heads.q_heads;
  const int64_t blocks = (heads.seq + kMmaRows - 1) / kMmaRows;
  const int64_t q_begin = (blocks - 1 - blockIdx.x / sequences) * kMmaRows;
  const int64_t b = blockIdx.x % sequences / heads.q_heads;
  const int64_t head = blockIdx.x % heads.q_heads;
  const int64_t k_head = heads.q_heads + heads.KvHead(head);
  const int64_t v_head = k_head + heads.kv_heads;
  const int64_t k_end = q_begin + kMmaRows < heads.seq ? q_begin + kMmaRows : heads.seq;

  LeftFragment q[kDim / 16], dout[kDim / 16];
  StartTileCopy<kDim, kMmaRows>(k_tiles, PackedTile(heads, x.qkv, b, head, q_begin), width);
  StartTileCopy<kDim, kMmaRows>(v_tiles, OutputTile(heads, x.dout, b, head, q_begin), width);
  WaitForCopies();
  __syncthreads();
  LoadLeftRows<kDim>(q, k_tiles + first_row * kMmaStride<kDim>);
  LoadLeftRows<kDim>(dout, v_tiles + first_row * kMmaStride<kDim>);
  __syncthreads();

  float lse[2], dots[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t query = q_begin + first_row + lane / 4 + 8 * half;
    const int64_t at = (b * heads.q_heads + head) * heads.seq + query;
    lse[half] = query < heads.seq ? x.lse[at] : 0.0f;
    dots[half] = query < heads.seq ? x.dots[at] : 0.0f;
  }
  const auto start = [&](int64_t k_begin, int buffer) {
    StartTileCopy<kDim, kOther>(k_tiles + buffer * kIncoming, PackedTile(heads, x.qkv, b, k_head, k_begin), width);
    StartTileCopy<kDim, kOther>(v_tiles + buffer * kIncoming, PackedTile(heads, x.qkv, b, v_head, k_begin), width);
  };

  SumFragment dq[kDim / 8] = {};
  start(0, 0);
  int buffer = 0;
  for (int64_t k_begin = 0; k_begin < k_end; k_begin += kOther, buffer ^= 1) {
    WaitForCopies();
    __syncthreads();
    if (k_begin + kOther < k_end) start(k_begin + kOther, buffer ^ 1);
    const BFloat16* k = k_tiles + buffer * kIncoming;
    const BFloat16* v = v_tiles + buffer * kIncoming;
    SumFragment scores[kOther / 8] = {};
    SumFragment gradients[kOther / 8] = {};
    MultiplyByRows<kDim>(scores, q, k);
    MultiplyByRows<kDim>(gradients, dout, v);
#pragma unroll
    for (int n = 0; n < kOther / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t query = q_begin + first_row + lane / 4 + e / 2 * 8;
        const int64_t key = k_begin + 8 * n + lane % 4 * 2 + e % 2;
        const float weight = key <= query && query < heads.seq ? WeightExp(scores[n][e] * x.scale - lse[e / 2]) : 0.0f;
        gradients[n][e] = weight * (gradients[n][e] - dots[e / 2]) * x.scale;
      }
    }
    AddWeighted<kDim>(dq, gradients, k);
  }
  const float ones[2] = {1.0f, 1.0f};
  StoreSums<kDim>(dq, ones, PackedTile(heads, x.dqkv, b, head, q_begin), first_row, width);
}

template <int kDim>
void Backward(const AttentionShape& shape, const MmaBackwardTensors& tensors, Stream& stream) {
  const int64_t tiles = (shape.seq + kMmaRows - 1) / kMmaRows;
  const HeadLayout heads = LayoutOf(shape);
  const int64_t shared_rows = 2 * kMmaRows + 4 * kOther;
  Launch(stream,
         {.blocks = shape.batch * shape.kv_heads * tiles,
          .threads = kMmaThreads,
          .shared_bytes = shared_rows * kMmaStride<kDim> * static_cast<int64_t>(sizeof(BFloat16))},
         MmaKeysKernel<kDim>, heads, tensors);
  Launch(stream, {.blocks = shape.batch * shape.q_heads * tiles, .threads = kMmaThreads}, MmaQueriesKernel<kDim>, heads,
         tensors);
}

}  // namespace

bool AttentionBackwardMma(const AttentionBackwardArgs& args, const float* dots, Stream& stream) {
  if (!FitsTensorCores(args.shape, args.qkv.dtype())) return false;
  if (!IsAlignedTo16(args.qkv.data()) || !IsAlignedTo16(args.dout.data()) || !IsAlignedTo16(args.dqkv.data())) {
    return false;
  }
  const MmaBackwardTensors tensors = {args.qkv.as<BFloat16>(),  args.dout.as<BFloat16>(),
                                      args.lse.as<float>(),     dots,
                                      args.dqkv.as<BFloat16>(), DeviceScoreScale(args.scale, args.shape)};
  if (args.shape.head_dim <= 64) {
    Backward<64>(args.shape, tensors, stream);
  } else {
    Backward<128>(args.shape, tensors, stream);
  }
  return true;
}

}  // namespace trainyard::kernels::internal
