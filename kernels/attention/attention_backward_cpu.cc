// The backward of attention. With P the weights, o = P v, and D[t] = dout[t] . o[t]:
//
//   dv = P^T dout,   dP = dout v^T,   dS = P * (dP - D),   dq = scale dS k,   dk = scale dS^T q
#include "kernels/attention/attention_blocks.h"
#include "kernels/attention/attention_internal.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/math.h"
#include "kernels/gemm/sgemm.h"

namespace trainyard::kernels::internal {
namespace {

// Scratch of one thread, in floats.
struct BackwardScratch {
  float *p, *ds, *dq;
  float *dk, *dv;  // of the whole sequence: sums over the query blocks and the heads of the group
  float *q, *dout, *k, *v;
  int64_t floats;

  BackwardScratch(float* base, const AttentionShape& shape, DType dtype) : floats(0) {
    const int64_t widened = dtype == DType::kF32 ? 0 : shape.head_dim;
    const auto take = [&](int64_t count) {
      float* block = base + floats;
      floats += Padded(count);
      return block;
    };
    p = take(kQueryBlock * kKeyBlock);
    ds = take(kQueryBlock * kKeyBlock);
    dq = take(kQueryBlock * shape.head_dim);
    dk = take(shape.seq * shape.head_dim);
    dv = take(shape.seq * shape.head_dim);
    q = take(kQueryBlock * widened);
    dout = take(kQueryBlock * widened);
    k = take(shape.seq * widened);
    v = take(shape.seq * widened);
  }
};

TY_SIMD void Dots(HeadRows<const float> a, HeadRows<const float> b, int64_t rows, int64_t cols, float* dots) {
  for (int64_t r = 0; r < rows; ++r) dots[r] = RowDot(a.row(r), b.row(r), cols);
}
TY_SIMD void Dots(HeadRows<const BFloat16> a, HeadRows<const BFloat16> b, int64_t rows, int64_t cols, float* dots) {
  for (int64_t r = 0; r < rows; ++r) dots[r] = RowDot(a.row(r), b.row(r), cols);
}

// Scores (in p) become weights, and dP (in ds) becomes scale * dS; masked ones are 0 in both.
TY_SIMD void WeightsAndScoreGradients(float* p, float* ds, int64_t rows, int64_t keys, int64_t q_begin, int64_t k_begin,
                                      const float* lse, const float* d, float scale) {
  for (int64_t r = 0; r < rows; ++r) {
    float* p_row = p + r * kKeyBlock;
    float* ds_row = ds + r * kKeyBlock;
    const int64_t unmasked = UnmaskedKeys(q_begin, k_begin, keys, r);
    const int64_t whole = Padded(unmasked);
    for (int64_t c = 0; c < whole; c += kRowLanes) {
      for (int64_t lane = 0; lane < kRowLanes; ++lane) {
        const float weight = FastExp(p_row[c + lane] - lse[r]);
        p_row[c + lane] = weight;
        ds_row[c + lane] = weight * (ds_row[c + lane] - d[r]) * scale;
      }
    }
    for (int64_t c = unmasked; c < keys; ++c) p_row[c] = 0.0f;
    for (int64_t c = unmasked; c < keys; ++c) ds_row[c] = 0.0f;
  }
}

// One head of keys and values with all the query heads that use it.
template <typename T>
void BackwardGroup(const AttentionBackwardArgs& args, int64_t b, int64_t kv_head, float* base) {
  const AttentionShape& shape = args.shape;
  const BackwardScratch scratch(base, shape, DTypeOf<T>::value);
  const float scale = ScoreScale(args.scale, shape);
  const int64_t width = shape.head_dim;
  const T* packed = args.qkv.as<T>();
  const HeadRows<const float> k_all = AsFloats(KeyHead(packed, shape, b, kv_head), shape.seq, width, scratch.k);
  const HeadRows<const float> v_all = AsFloats(ValueHead(packed, shape, b, kv_head), shape.seq, width, scratch.v);
  std::fill_n(scratch.dk, shape.seq * width, 0.0f);
  std::fill_n(scratch.dv, shape.seq * width, 0.0f);

  for (int64_t head = 0; head < shape.q_heads; ++head) {
    if (shape.kv_head(head) != kv_head) continue;
    for (int64_t q_begin = 0; q_begin < shape.seq; q_begin += kQueryBlock) {
      const int64_t rows = std::min(kQueryBlock, shape.seq - q_begin);
      const HeadRows<const T> stored_dout = OutputHead<const T>(args.dout.as<T>(), shape, b, head).From(q_begin);
      const HeadRows<const T> stored_o = OutputHead<const T>(args.o.as<T>(), shape, b, head).From(q_begin);
      const HeadRows<const float> q = AsFloats(QueryHead(packed, shape, b, head).From(q_begin), rows, width, scratch.q);
      const HeadRows<const float> dout = AsFloats(stored_dout, rows, width, scratch.dout);
      const float* lse = args.lse.as<float>() + (b * shape.q_heads + head) * shape.seq + q_begin;
      float d[kQueryBlock];
      Dots(stored_dout, stored_o, rows, width, d);

      for (int64_t k_begin = 0; k_begin < q_begin + rows; k_begin += kKeyBlock) {
        const int64_t keys = std::min(kKeyBlock, q_begin + rows - k_begin);
        const HeadRows<const float> k = k_all.From(k_begin);
        const HeadRows<const float> v = v_all.From(k_begin);
        Sgemm({.transpose_b = true,
               .m = rows,
               .n = keys,
               .k = width,
               .alpha = scale,
               .a = q.data,
               .lda = q.stride,
               .b = k.data,
               .ldb = k.stride,
               .c = scratch.p,
               .ldc = kKeyBlock});
        Sgemm({.transpose_b = true,
               .m = rows,
               .n = keys,
               .k = width,
               .a = dout.data,
               .lda = dout.stride,
               .b = v.data,
               .ldb = v.stride,
               .c = scratch.ds,
               .ldc = kKeyBlock});
        WeightsAndScoreGradients(scratch.p, scratch.ds, rows, keys, q_begin, k_begin, lse, d, scale);
        Sgemm({.transpose_a = true,
               .m = keys,
               .n = width,
               .k = rows,
               .a = scratch.p,
               .lda = kKeyBlock,
               .b = dout.data,
               .ldb = dout.stride,
               .beta = 1.0f,
               .c = scratch.dv + k_begin * width,
               .ldc = width});
        Sgemm({.transpose_a = true,
               .m = keys,
               .n = width,
               .k = rows,
               .a = scratch.ds,
               .lda = kKeyBlock,
               .b = q.data,
               .ldb = q.stride,
               .beta = 1.0f,
               .c = scratch.dk + k_begin * width,
               .ldc = width});
        Sgemm({.m = rows,
               .n = width,
               .k = keys,
               .a = scratch.ds,
               .lda = kKeyBlock,
               .b = k.data,
               .ldb = k.stride,
               .beta = k_begin > 0 ? 1.0f : 0.0f,
               .c = scratch.dq,
               .ldc = width});
      }
      StoreRows(scratch.dq, nullptr, rows, width, QueryHead(args.dqkv.as<T>(), shape, b, head).From(q_begin));
    }
  }
  StoreRows(scratch.dk, nullptr, shape.seq, width, KeyHead(args.dqkv.as<T>(), shape, b, kv_head));
  StoreRows(scratch.dv, nullptr, shape.seq, width, ValueHead(args.dqkv.as<T>(), shape, b, kv_head));
}

}  // namespace

void AttentionBackwardCpu(const AttentionBackwardArgs& args, Stream& stream) {
  const AttentionShape& shape = args.shape;
  const DType dtype = args.qkv.dtype();
  float* scratch = static_cast<float*>(args.workspace.data());
  const int64_t floats = BackwardScratch(scratch, shape, dtype).floats;
  DispatchFloat(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ForTasks(stream, shape.batch * shape.kv_heads, scratch, floats, [&](int64_t task, float* base) {
      BackwardGroup<T>(args, task / shape.kv_heads, task % shape.kv_heads, base);
    });
  });
}

int64_t AttentionBackwardCpuWorkspaceBytes(const AttentionShape& shape, DType dtype, int threads) {
  return BackwardScratch(nullptr, shape, dtype).floats * static_cast<int64_t>(sizeof(float)) * threads;
}

}  // namespace trainyard::kernels::internal
