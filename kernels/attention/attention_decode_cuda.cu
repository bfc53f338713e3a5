// Generation: one query a head against its cache, a block a (sequence, head). Eight warps take four keys each in turn,
// with an online softmax of their own; their sums are merged in the order of the warps.
#include <limits>

#include "kernels/attention/attention_tiles.h"
#include "kernels/core/block_reduce.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/math.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kDecodeThreads = 256;
constexpr int kDecodeWarps = kDecodeThreads / 32;
constexpr int kKeysAtOnce = 4;

// head_dim at most 32 * kPerLane.
template <typename T, int kPerLane>
__global__ void __launch_bounds__(kDecodeThreads)
    DecodeKernel(const HeadLayout heads, const T* q, int64_t q_stride, const T* k_cache, const T* v_cache,
                 int64_t capacity, int64_t length, T* o, float scale) {
  __shared__ float partial[kDecodeWarps][32 * kPerLane];
  __shared__ float partial_max[kDecodeWarps];
  __shared__ float partial_sum[kDecodeWarps];
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t b = blockIdx.x / heads.q_heads;
  const int64_t head = blockIdx.x % heads.q_heads;
  const int64_t width = heads.head_dim;
  const int64_t stride = heads.kv_heads * width;
  const int64_t offset = (b * capacity * heads.kv_heads + heads.KvHead(head)) * width;

  float query[kPerLane];
  float sums[kPerLane] = {};
  float max = kNothing;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int c = lane + 32 * i;
    query[i] = c < width ? ToFloat(q[b * q_stride + head * width + c]) : 0.0f;
  }
  for (int64_t begin = kKeysAtOnce * warp; begin < length; begin += kKeysAtOnce * kDecodeWarps) {
    float scores[kKeysAtOnce];
    float new_max = max;
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      float dot = 0;
      if (begin + j < length) {
        const T* key = k_cache + offset + (begin + j) * stride;
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
          if (lane + 32 * i < width) dot = fmaf(query[i], ToFloat(key[lane + 32 * i]), dot);
        }
      }
      scores[j] = WarpReduce(dot, Sum());
      scores[j] = begin + j < length ? scores[j] * scale : kNothing;
      new_max = Max()(new_max, scores[j]);
    }
    const float factor = FastExp(max - new_max);
    max = new_max;
    sum *= factor;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) sums[i] *= factor;
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      if (begin + j >= length) continue;
      const float weight = FastExp(scores[j] - max);
      const T* value = v_cache + offset + (begin + j) * stride;
      sum += weight;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        if (lane + 32 * i < width) sums[i] = fmaf(weight, ToFloat(value[lane + 32 * i]), sums[i]);
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kPerLane; ++i) partial[warp][lane + 32 * i] = sums[i];
  if (lane == 0) {
    partial_max[warp] = max;
    partial_sum[warp] = sum;
  }
  __syncthreads();
  float total_max = partial_max[0];  // finite: the first warp has a key
  for (int w = 1; w < kDecodeWarps; ++w) total_max = Max()(total_max, partial_max[w]);
  float total = 0;
  for (int w = 0; w < kDecodeWarps; ++w) total += partial_sum[w] * FastExp(partial_max[w] - total_max);
  for (int64_t c = threadIdx.x; c < width; c += kDecodeThreads) {
    float value = 0;
    for (int w = 0; w < kDecodeWarps; ++w) value += partial[w][c] * FastExp(partial_max[w] - total_max);
    o[blockIdx.x * width + c] = FromFloat<T>(value / total);
  }
}

template <typename T, int kPerLane>
void Decode(const AttentionDecodeArgs& args, Stream& stream) {
  const AttentionShape& shape = args.shape;
  Launch(stream, {.blocks = shape.batch * shape.q_heads, .threads = kDecodeThreads}, DecodeKernel<T, kPerLane>,
         LayoutOf(shape), args.q.as<T>(), args.q.dim(1), args.k_cache.as<T>(), args.v_cache.as<T>(),
         args.k_cache.dim(1), args.length, args.o.as<T>(), DeviceScoreScale(args.scale, shape));
}

// Units of a row's copy.
struct alignas(16) SixteenBytes {
  uint32_t words[4];
};

// What one call copies, in units: `from` rows of row_units (k and v after each other) out of packed rows.
template <typename Unit>
struct AppendRows {
  const Unit* qkv;
  Unit* k_cache;
  Unit* v_cache;
  int64_t packed_units, k_offset, row_units;
  int64_t seq, capacity, position, tokens;
};

template <typename Unit>
__global__ void AppendKernel(const AppendRows<Unit> rows) {
  const int64_t count = rows.tokens * rows.row_units;
  for (int64_t i = GlobalThread(); i < count; i += GlobalThreads()) {
    const int64_t token = i / rows.row_units;
    const int64_t c = i % rows.row_units;
    const int64_t row = token / rows.seq * rows.capacity + rows.position + token % rows.seq;
    const Unit* k = rows.qkv + token * rows.packed_units + rows.k_offset + c;
    rows.k_cache[row * rows.row_units + c] = *k;
    rows.v_cache[row * rows.row_units + c] = k[rows.row_units];
  }
}

template <typename Unit>
bool Divides(const KvCacheAppendArgs& args, int64_t element) {
  constexpr int64_t kUnit = sizeof(Unit);
  const auto is_aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % kUnit == 0; };
  const int64_t width = args.shape.head_dim * element;
  return args.shape.q_heads * width % kUnit == 0 && args.shape.kv_heads * width % kUnit == 0 &&
         is_aligned(args.qkv.data()) && is_aligned(args.k_cache.data()) && is_aligned(args.v_cache.data());
}

template <typename Unit>
void Append(const KvCacheAppendArgs& args, int64_t element, Stream& stream) {
  const AttentionShape& shape = args.shape;
  const int64_t unit = sizeof(Unit);
  const AppendRows<Unit> rows = {static_cast<const Unit*>(args.qkv.data()),
                                 static_cast<Unit*>(args.k_cache.data()),
                                 static_cast<Unit*>(args.v_cache.data()),
                                 shape.packed_width() * element / unit,
                                 shape.q_heads * shape.head_dim * element / unit,
                                 shape.kv_heads * shape.head_dim * element / unit,
                                 shape.seq,
                                 args.k_cache.dim(1),
                                 args.position,
                                 shape.batch * shape.seq};
  if (rows.tokens == 0) return;
  Launch(stream, ElementwiseGrid(rows.tokens * rows.row_units), AppendKernel<Unit>, rows);
}

}  // namespace

void AttentionDecodeCuda(const AttentionDecodeArgs& args, Stream& stream) {
  if (args.shape.batch == 0) return;
  DispatchFloat(args.q.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    static_assert(kMaxDecodeHeadDim == 32 * 32);
    if (args.shape.head_dim <= 64) return Decode<T, 2>(args, stream);
    if (args.shape.head_dim <= 128) return Decode<T, 4>(args, stream);
    if (args.shape.head_dim <= 256) return Decode<T, 8>(args, stream);
    Decode<T, 32>(args, stream);
  });
}

void KvCacheAppendCuda(const KvCacheAppendArgs& args, Stream& stream) {
  const int64_t element = static_cast<int64_t>(SizeOf(args.qkv.dtype()));
  if (Divides<SixteenBytes>(args, element)) {
    Append<SixteenBytes>(args, element, stream);
  } else if (element == 4) {
    Append<uint32_t>(args, element, stream);
  } else {
    Append<uint16_t>(args, element, stream);
  }
}

}  // namespace trainyard::kernels::internal
