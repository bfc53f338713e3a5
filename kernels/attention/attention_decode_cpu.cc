#include <cstring>
#include <limits>

#include "kernels/attention/attention_blocks.h"
#include "kernels/attention/attention_internal.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/math.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kDecodeBlock = 64;  // keys whose scores are on the stack at a time

// One query against `length` cached keys and values: the online softmax of the forward, a vector at a time.
template <typename T>
TY_INLINE void DecodeHead(const T* q, HeadRows<const T> k, HeadRows<const T> v, int64_t length, int64_t width,
                          float scale, T* o) {
  float sums[kMaxDecodeHeadDim];
  float weights[kDecodeBlock];
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
  for (int64_t c = 0; c < width; ++c) sums[c] = 0.0f;
  for (int64_t begin = 0; begin < length; begin += kDecodeBlock) {
    const int64_t keys = std::min(kDecodeBlock, length - begin);
    float block_max = max;
    for (int64_t j = 0; j < keys; ++j) {
      weights[j] = scale * RowDot(q, k.row(begin + j), width);
      block_max = block_max < weights[j] ? weights[j] : block_max;
    }
    const float factor = FastExp(max - block_max);
    max = block_max;
    sum *= factor;
    for (int64_t c = 0; c < width; ++c) sums[c] *= factor;
    for (int64_t j = 0; j < keys; ++j) weights[j] = FastExp(weights[j] - max);
    for (int64_t j = 0; j < keys; ++j) {
      const T* value = v.row(begin + j);
      sum += weights[j];
      for (int64_t c = 0; c < width; ++c) sums[c] += weights[j] * ToFloat(value[c]);
    }
  }
  for (int64_t c = 0; c < width; ++c) o[c] = FromFloat<T>(sums[c] / sum);
}

TY_SIMD void Decode(const float* q, HeadRows<const float> k, HeadRows<const float> v, int64_t length, int64_t width,
                    float scale, float* o) {
  DecodeHead(q, k, v, length, width, scale, o);
}
TY_SIMD void Decode(const BFloat16* q, HeadRows<const BFloat16> k, HeadRows<const BFloat16> v, int64_t length,
                    int64_t width, float scale, BFloat16* o) {
  DecodeHead(q, k, v, length, width, scale, o);
}

}  // namespace

void AttentionDecodeCpu(const AttentionDecodeArgs& args, Stream& stream) {
  const AttentionShape& shape = args.shape;
  const float scale = ScoreScale(args.scale, shape);
  const int64_t width = shape.head_dim;
  const int64_t capacity = args.k_cache.dim(1);
  DispatchFloat(args.q.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    stream.pool().ParallelFor(shape.batch * shape.q_heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i / shape.q_heads;
        const int64_t head = i % shape.q_heads;
        const int64_t offset = (b * capacity * shape.kv_heads + shape.kv_head(head)) * width;
        const int64_t stride = shape.kv_heads * width;
        Decode(args.q.as<T>() + b * args.q.dim(1) + head * width, {args.k_cache.as<T>() + offset, stride},
               {args.v_cache.as<T>() + offset, stride}, args.length, width, scale, args.o.as<T>() + i * width);
      }
    });
  });
}

void KvCacheAppendCpu(const KvCacheAppendArgs& args, Stream& stream) {
  const AttentionShape& shape = args.shape;
  const int64_t capacity = args.k_cache.dim(1);
  const int64_t element = static_cast<int64_t>(SizeOf(args.qkv.dtype()));
  const int64_t row_bytes = shape.kv_heads * shape.head_dim * element;
  const int64_t packed_bytes = shape.packed_width() * element;
  const char* qkv = static_cast<const char*>(args.qkv.data());
  stream.pool().ParallelFor(shape.batch * shape.seq, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / shape.seq * capacity + args.position + i % shape.seq;
      const char* k = qkv + i * packed_bytes + shape.q_heads * shape.head_dim * element;
      std::memcpy(static_cast<char*>(args.k_cache.data()) + row * row_bytes, k, static_cast<size_t>(row_bytes));
      std::memcpy(static_cast<char*>(args.v_cache.data()) + row * row_bytes, k + row_bytes,
                  static_cast<size_t>(row_bytes));
    }
  });
}

}  // namespace trainyard::kernels::internal
