// The backends of attention.
#pragma once

#include "kernels/attention/attention.h"

namespace trainyard::kernels::internal {

// The most query heads that a map of heads may have on a CUDA device, where it travels with the launch.
inline constexpr int64_t kMaxMappedHeads = 1024;

// What the CUDA backward keeps between its kernels: dout . o of every query of every head, f32.
inline int64_t AttentionBackwardDotsBytes(const AttentionShape& shape) {
  return shape.batch * shape.q_heads * shape.seq * static_cast<int64_t>(sizeof(float));
}
int64_t AttentionBackwardCpuWorkspaceBytes(const AttentionShape& shape, DType dtype, int threads);

void AttentionForwardCpu(const AttentionForwardArgs& args, Stream& stream);
void AttentionBackwardCpu(const AttentionBackwardArgs& args, Stream& stream);
void AttentionDecodeCpu(const AttentionDecodeArgs& args, Stream& stream);
void KvCacheAppendCpu(const KvCacheAppendArgs& args, Stream& stream);

void AttentionForwardCuda(const AttentionForwardArgs& args, Stream& stream);
void AttentionBackwardCuda(const AttentionBackwardArgs& args, Stream& stream);
void AttentionDecodeCuda(const AttentionDecodeArgs& args, Stream& stream);
void KvCacheAppendCuda(const KvCacheAppendArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
