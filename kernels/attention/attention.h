// Causal self-attention with grouped key/value heads (Ainslie et al., arXiv:2305.13245), computed in blocks with an
// online softmax so that no T x T matrix is ever kept (Dao et al., arXiv:2205.14135).
//
//   o[b,t,h] = sum_{s <= t} p[s] v[b,s,g],   p[s] = exp(scale * q[b,t,h] . k[b,s,g] - lse[b,h,t]),
//   lse[b,h,t] = log sum_{s <= t} exp(scale * q[b,t,h] . k[b,s,g]),   g = h / (q_heads / kv_heads)
//
// or, with a map of heads, g = kv_of_head[h]: what is left of the groups when query heads are pruned (DarwinLM,
// arXiv:2502.07780, section 3.2). A key/value head that no query head reads gets zero gradients.
//
// A token's row of qkv is q heads | k heads | v heads, each head_dim wide: (B, T, (Hq + 2 Hkv) * HS). Any T >= 1, any
// head_dim >= 1, q_heads a multiple of kv_heads unless there is a map. Tensors are f32 or bf16, one dtype a call;
// arithmetic is f32. Results are the same for any number of threads and for a map that says what no map says, and an
// output depends on no later token, not even by a bit.
//
// On a CUDA device: no atomics, every sum in an order that the shape gives; a map has at most 1024 query heads.
// Compiled for sm_90a; has run on the emulated device, not on a GPU.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct AttentionShape {
  int64_t batch = 0;
  int64_t seq = 0;
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  // (q_heads) numbers in [0, kv_heads), of the caller's, that live as long as the call; null: regular groups.
  const int32_t* kv_of_head = nullptr;

  int64_t group() const { return q_heads / kv_heads; }  // query heads that share a key/value head, without a map
  int64_t kv_head(int64_t q_head) const { return kv_of_head != nullptr ? kv_of_head[q_head] : q_head / group(); }
  int64_t packed_width() const { return (q_heads + 2 * kv_heads) * head_dim; }
};

struct AttentionForwardArgs {
  AttentionShape shape;
  TensorView qkv;        // (B, T, (Hq + 2 Hkv) * HS); any view of that many elements
  TensorView o;          // (B, T, Hq * HS)
  TensorView lse;        // f32 (B, Hq, T), kept for the backward
  float scale = 0.0f;    // of the scores; 0 means 1 / sqrt(head_dim)
  TensorView workspace;  // u8, at least AttentionForwardWorkspaceBytes
  // Optional, f32 (1), overwritten with the largest magnitude of o: the bits of AbsMax (kernels/quant/abs_max.h)
  // without its pass.
  TensorView amax = {};
};

// Scratch for `stream.threads()` threads.
int64_t AttentionForwardWorkspaceBytes(const AttentionShape& shape, DType dtype, int threads);

// Overwrites o and lse.
void AttentionForward(const AttentionForwardArgs& args, Stream& stream);

struct AttentionBackwardArgs {
  AttentionShape shape;
  TensorView qkv, o, lse;  // as given to and written by the forward
  TensorView dout;         // (B, T, Hq * HS), gradient of o
  TensorView dqkv;         // as qkv
  float scale = 0.0f;
  TensorView workspace;  // u8, at least AttentionBackwardWorkspaceBytes
};

int64_t AttentionBackwardWorkspaceBytes(const AttentionShape& shape, DType dtype, int threads);

// Overwrites dqkv; the scores are computed again from qkv and lse. On the CPU one task a (batch, key/value head), so at
// most B * Hkv threads help. dqkv may alias nothing.
void AttentionBackward(const AttentionBackwardArgs& args, Stream& stream);

inline constexpr int64_t kMaxDecodeHeadDim = 1024;

// One new token a sequence against the keys and values so far, for generation.
struct AttentionDecodeArgs {
  AttentionShape shape;         // seq is not used
  TensorView q;                 // (B, Hq * HS), or the packed rows (B, (Hq + 2 Hkv) * HS), of which q is the head
  TensorView k_cache, v_cache;  // (B, T_max, Hkv, HS)
  int64_t length = 0;           // valid positions of the cache, the new token's own among them; 1..T_max
  TensorView o;                 // (B, Hq * HS)
  float scale = 0.0f;
};

// Overwrites o.
void AttentionDecode(const AttentionDecodeArgs& args, Stream& stream);

// Copies the k and v heads of packed rows (after RoPE) to cache positions [position, position + seq).
struct KvCacheAppendArgs {
  AttentionShape shape;
  TensorView qkv;               // (B, T, (Hq + 2 Hkv) * HS)
  TensorView k_cache, v_cache;  // (B, T_max, Hkv, HS), same dtype
  int64_t position = 0;
};

void KvCacheAppend(const KvCacheAppendArgs& args, Stream& stream);

}  // namespace trainyard::kernels
