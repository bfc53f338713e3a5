#include <cmath>
#include <limits>

#include "kernels/attention/attention_blocks.h"
#include "kernels/attention/attention_internal.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/math.h"
#include "kernels/gemm/sgemm.h"
#include "kernels/quant/largest_magnitude.h"

namespace trainyard::kernels {
namespace internal {
namespace {

// Scratch of one thread, in floats.
struct ForwardScratch {
  float* scores;
  float* sums;  // the rows of o before they are divided by their weights' sum
  float *q, *k, *v;
  int64_t floats;

  ForwardScratch(float* base, const AttentionShape& shape, DType dtype) : floats(0) {
    const int64_t widened = dtype == DType::kF32 ? 0 : shape.head_dim;
    const auto take = [&](int64_t count) {
      float* block = base + floats;
      floats += Padded(count);
      return block;
    };
    scores = take(kQueryBlock * kKeyBlock);
    sums = take(kQueryBlock * shape.head_dim);
    q = take(kQueryBlock * widened);
    k = take(kKeyBlock * widened);
    v = take(kKeyBlock * widened);
  }
};

// The online softmax of the rows of a query block.
struct RunningSoftmax {
  float max[kQueryBlock];
  float sum[kQueryBlock];
  float factor[kQueryBlock];  // what the last update multiplied earlier sums with
};

// Turns a strip of scores into weights exp(s - max) under the rows' new maxima, masked ones into 0.
TY_SIMD void UpdateSoftmax(float* scores, int64_t rows, int64_t keys, int64_t q_begin, int64_t k_begin,
                           RunningSoftmax& softmax) {
  for (int64_t r = 0; r < rows; ++r) {
    float* s = scores + r * kKeyBlock;
    const int64_t unmasked = UnmaskedKeys(q_begin, k_begin, keys, r);
    const int64_t whole = Padded(unmasked);  // whole lanes; the strip is wide enough
    for (int64_t c = unmasked; c < whole; ++c) s[c] = -std::numeric_limits<float>::infinity();

    float lanes[kRowLanes];
    for (int64_t lane = 0; lane < kRowLanes; ++lane) lanes[lane] = s[lane];
    for (int64_t c = kRowLanes; c < whole; c += kRowLanes) {
      for (int64_t lane = 0; lane < kRowLanes; ++lane)
        lanes[lane] = lanes[lane] < s[c + lane] ? s[c + lane] : lanes[lane];
    }
    float max = softmax.max[r];
    for (int64_t lane = 0; lane < kRowLanes; ++lane) max = max < lanes[lane] ? lanes[lane] : max;

    for (int64_t lane = 0; lane < kRowLanes; ++lane) lanes[lane] = 0.0f;
    for (int64_t c = 0; c < whole; c += kRowLanes) {
      for (int64_t lane = 0; lane < kRowLanes; ++lane) {
        const float weight = FastExp(s[c + lane] - max);
        s[c + lane] = weight;
        lanes[lane] += weight;
      }
    }
    float sum = 0.0f;
    for (int64_t lane = 0; lane < kRowLanes; ++lane) sum += lanes[lane];
    for (int64_t c = whole; c < keys; ++c) s[c] = 0.0f;

    const float factor = FastExp(softmax.max[r] - max);
    softmax.factor[r] = factor;
    softmax.sum[r] = softmax.sum[r] * factor + sum;
    softmax.max[r] = max;
  }
}

TY_SIMD void ScaleRows(float* x, const float* factors, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) x[r * cols + c] *= factors[r];
  }
}

// One block of queries of one head.
template <typename T>
void ForwardBlock(const AttentionForwardArgs& args, int64_t b, int64_t head, int64_t q_begin, float* base,
                  LargestMagnitude& largest) {
  const AttentionShape& shape = args.shape;
  const ForwardScratch scratch(base, shape, DTypeOf<T>::value);
  const float scale = ScoreScale(args.scale, shape);
  const int64_t width = shape.head_dim;
  const int64_t rows = std::min(kQueryBlock, shape.seq - q_begin);
  const T* packed = args.qkv.as<T>();
  const HeadRows<const T> keys_of_head = KeyHead(packed, shape, b, shape.kv_head(head));
  const HeadRows<const T> values_of_head = ValueHead(packed, shape, b, shape.kv_head(head));
  const HeadRows<const float> q = AsFloats(QueryHead(packed, shape, b, head).From(q_begin), rows, width, scratch.q);

  RunningSoftmax softmax;
  std::fill_n(softmax.max, rows, -std::numeric_limits<float>::infinity());
  std::fill_n(softmax.sum, rows, 0.0f);
  for (int64_t k_begin = 0; k_begin < q_begin + rows; k_begin += kKeyBlock) {
    const int64_t keys = std::min(kKeyBlock, q_begin + rows - k_begin);
    const HeadRows<const float> k = AsFloats(keys_of_head.From(k_begin), keys, width, scratch.k);
    const HeadRows<const float> v = AsFloats(values_of_head.From(k_begin), keys, width, scratch.v);
    Sgemm({.transpose_b = true,
           .m = rows,
           .n = keys,
           .k = width,
           .alpha = scale,
           .a = q.data,
           .lda = q.stride,
           .b = k.data,
           .ldb = k.stride,
           .c = scratch.scores,
           .ldc = kKeyBlock});
    UpdateSoftmax(scratch.scores, rows, keys, q_begin, k_begin, softmax);
    if (k_begin > 0) ScaleRows(scratch.sums, softmax.factor, rows, width);
    Sgemm({.m = rows,
           .n = width,
           .k = keys,
           .a = scratch.scores,
           .lda = kKeyBlock,
           .b = v.data,
           .ldb = v.stride,
           .beta = k_begin > 0 ? 1.0f : 0.0f,
           .c = scratch.sums,
           .ldc = width});
  }

  float* lse = args.lse.as<float>() + (b * shape.q_heads + head) * shape.seq + q_begin;
  for (int64_t r = 0; r < rows; ++r) {
    lse[r] = softmax.max[r] + std::log(softmax.sum[r]);
    softmax.factor[r] = 1.0f / softmax.sum[r];
  }
  StoreRows(scratch.sums, softmax.factor, rows, width, OutputHead(args.o.as<T>(), shape, b, head).From(q_begin));
  if (!args.amax) return;
  for (int64_t r = 0; r < rows; ++r) {
    largest.Add(args.o, ((b * shape.seq + q_begin + r) * shape.q_heads + head) * width, width);
  }
}

}  // namespace

void AttentionForwardCpu(const AttentionForwardArgs& args, Stream& stream) {
  const AttentionShape& shape = args.shape;
  const DType dtype = args.qkv.dtype();
  float* scratch = static_cast<float*>(args.workspace.data());
  const int64_t floats = ForwardScratch(scratch, shape, dtype).floats;
  const int64_t blocks = (shape.seq + kQueryBlock - 1) / kQueryBlock;
  LargestMagnitude largest(args.amax);
  DispatchFloat(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ForTasks(stream, shape.batch * shape.q_heads * blocks, scratch, floats, [&](int64_t task, float* base) {
      const int64_t head = task / blocks;
      // The later a block, the more keys it meets: those first, so that threads end together.
      const int64_t block = blocks - 1 - task % blocks;
      ForwardBlock<T>(args, head / shape.q_heads, head % shape.q_heads, block * kQueryBlock, base, largest);
    });
  });
  largest.Finish();
}

}  // namespace internal

int64_t AttentionForwardWorkspaceBytes(const AttentionShape& shape, DType dtype, int threads) {
  return internal::ForwardScratch(nullptr, shape, dtype).floats * static_cast<int64_t>(sizeof(float)) * threads;
}

}  // namespace trainyard::kernels
