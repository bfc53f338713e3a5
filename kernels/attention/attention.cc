#include "kernels/attention/attention.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/attention/attention_internal.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace {

void CheckShape(const AttentionShape& shape) {
  TY_CHECK_GE(shape.batch, 0);
  TY_CHECK_GE(shape.head_dim, 1);
  TY_CHECK_GE(shape.kv_heads, 1);
  TY_CHECK_GE(shape.q_heads, 1);
  if (shape.kv_of_head == nullptr) {
    TY_CHECK_EQ(shape.q_heads % shape.kv_heads, 0);
    return;
  }
  for (int64_t head = 0; head < shape.q_heads; ++head) {
    TY_CHECK_GE(shape.kv_of_head[head], 0);
    TY_CHECK_LT(shape.kv_of_head[head], shape.kv_heads);
  }
}

void CheckCache(const AttentionShape& shape, const TensorView& cache, DType dtype) {
  TY_CHECK(cache.dtype() == dtype);
  TY_CHECK_EQ(cache.rank(), 4);
  TY_CHECK_EQ(cache.dim(0), shape.batch);
  TY_CHECK_EQ(cache.dim(2), shape.kv_heads);
  TY_CHECK_EQ(cache.dim(3), shape.head_dim);
}

void CheckPacked(const AttentionShape& shape, const TensorView& packed, DType dtype) {
  TY_CHECK(packed.dtype() == dtype);
  TY_CHECK_EQ(packed.size(), shape.batch * shape.seq * shape.packed_width());
}

void CheckOutput(const AttentionShape& shape, const TensorView& o, DType dtype) {
  TY_CHECK(o.dtype() == dtype);
  TY_CHECK_EQ(o.size(), shape.batch * shape.seq * shape.q_heads * shape.head_dim);
}

void CheckLse(const AttentionShape& shape, const TensorView& lse) {
  TY_CHECK(lse.dtype() == DType::kF32);
  TY_CHECK_EQ(lse.size(), shape.batch * shape.q_heads * shape.seq);
}

}  // namespace

void AttentionForward(const AttentionForwardArgs& args, Stream& stream) {
  const DType dtype = args.qkv.dtype();
  CheckShape(args.shape);
  CheckPacked(args.shape, args.qkv, dtype);
  CheckOutput(args.shape, args.o, dtype);
  CheckLse(args.shape, args.lse);
  TY_CHECK_GE(args.workspace.bytes(), AttentionForwardWorkspaceBytes(args.shape, dtype, stream.threads()));
  TY_SELECT(stream, AttentionForward)(args, stream);
}

void AttentionBackward(const AttentionBackwardArgs& args, Stream& stream) {
  const DType dtype = args.qkv.dtype();
  CheckShape(args.shape);
  CheckPacked(args.shape, args.qkv, dtype);
  CheckPacked(args.shape, args.dqkv, dtype);
  CheckOutput(args.shape, args.o, dtype);
  CheckOutput(args.shape, args.dout, dtype);
  CheckLse(args.shape, args.lse);
  TY_CHECK_GE(args.workspace.bytes(), AttentionBackwardWorkspaceBytes(args.shape, dtype, stream.threads()));
  TY_SELECT(stream, AttentionBackward)(args, stream);
}

void AttentionDecode(const AttentionDecodeArgs& args, Stream& stream) {
  const AttentionShape& shape = args.shape;
  const DType dtype = args.q.dtype();
  CheckShape(shape);
  TY_CHECK_LE(shape.head_dim, kMaxDecodeHeadDim);
  TY_CHECK_EQ(args.q.rank(), 2);
  TY_CHECK_EQ(args.q.dim(0), shape.batch);
  TY_CHECK(args.q.dim(1) == shape.q_heads * shape.head_dim || args.q.dim(1) == shape.packed_width());
  CheckCache(shape, args.k_cache, dtype);
  CheckCache(shape, args.v_cache, dtype);
  TY_CHECK(SameShape(args.k_cache, args.v_cache));
  TY_CHECK_GE(args.length, 1);
  TY_CHECK_LE(args.length, args.k_cache.dim(1));
  TY_CHECK(args.o.dtype() == dtype);
  TY_CHECK_EQ(args.o.size(), shape.batch * shape.q_heads * shape.head_dim);
  TY_SELECT(stream, AttentionDecode)(args, stream);
}

void KvCacheAppend(const KvCacheAppendArgs& args, Stream& stream) {
  const DType dtype = args.qkv.dtype();
  CheckShape(args.shape);
  CheckPacked(args.shape, args.qkv, dtype);
  CheckCache(args.shape, args.k_cache, dtype);
  CheckCache(args.shape, args.v_cache, dtype);
  TY_CHECK(SameShape(args.k_cache, args.v_cache));
  TY_CHECK_GE(args.position, 0);
  TY_CHECK_LE(args.position + args.shape.seq, args.k_cache.dim(1));
  TY_SELECT(stream, KvCacheAppend)(args, stream);
}

int64_t AttentionBackwardWorkspaceBytes(const AttentionShape& shape, DType dtype, int threads) {
  return std::max(internal::AttentionBackwardCpuWorkspaceBytes(shape, dtype, threads),
                  internal::AttentionBackwardDotsBytes(shape));
}

}  // namespace trainyard::kernels
