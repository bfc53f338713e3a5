// Forward-mode derivatives of a transformer's operations, for one sequence at a time and several tangents that share
// one primal (influence-distillation.md 2.5), on Duals (dual.h). Parameters are those of worker/model/parameters.h;
// their tangents are random directions (random_direction.h) or given.
//
// T is float or double; sums are in T. On the CPU a call is the work of the calling thread alone, so that several may
// be made at once on one stream. On a CUDA stream T is float, all pointers but maps of heads are memory of the device,
// and calls enqueue; products are Gemm's and the primal of attention AttentionForward's. Everywhere the bits depend on
// the shapes and the type of device alone, so a sequence's numbers do not depend on which others are computed beside
// it, nor the primal on its tangents. Compiled for sm_90a; has run on the emulated device, not on a GPU.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/tangent/dual.h"
#include "kernels/tangent/random_direction.h"

namespace trainyard::kernels {

// y = table[token], y. = table.[token], where tangent k of the table is direction k of `key.tensor`.
template <typename T>
struct EmbeddingTangentArgs {
  const int32_t* tokens = nullptr;  // (rows); checked by the caller
  const T* table = nullptr;         // (vocabulary, cols)
  DirectionKey key;                 // its direction is not used
  Dual<T> y;
};
template <typename T>
void EmbeddingTangent(const EmbeddingTangentArgs<T>& args, Stream& stream);

// y = x w^T + bias, y. = x. w^T + bias.: what does not need w.'s tangent, which AddWeightTangent adds.
template <typename T>
struct LinearTangentArgs {
  Dual<T> x;
  const T* w = nullptr;          // (out, in)
  const T* bias = nullptr;       // (out), optional
  const T* bias_dots = nullptr;  // (tangents, out), with bias
  Dual<T> y;
};
template <typename T>
void LinearTangent(const LinearTangentArgs<T>& args, Stream& stream);

// y.tangent(tangent)[:, row_begin + j] += x w.[j]^T for rows [row_begin, row_begin + count) of w, whose tangent these
// are. So a direction is never kept whole, and one panel serves many sequences.
template <typename T>
struct WeightTangentArgs {
  Dual<T> x;
  const T* panel = nullptr;  // (count, in)
  int64_t row_begin = 0;
  int64_t count = 0;
  int64_t tangent = 0;
  Dual<T> y;
  T* product = nullptr;  // scratch (rows, count) on a CUDA device; not used on the CPU
};
template <typename T>
void AddWeightTangent(const WeightTangentArgs<T>& args, Stream& stream);

// y = w x / r, r = sqrt(mean(x^2) + eps);  r. = mean(x x.) / r;  y. = w. x / r + w (x. / r - x r. / r^2). y may be x.
template <typename T>
struct RmsNormTangentArgs {
  Dual<T> x;
  const T* w = nullptr;       // (cols)
  const T* w_dots = nullptr;  // (tangents, cols)
  Dual<T> y;
  double eps = 1e-5;
};
template <typename T>
void RmsNormTangent(const RmsNormTangentArgs<T>& args, Stream& stream);

// y = up SiLU(gate), gate_up as kernels/pointwise/swiglu.h. With s = sigmoid(gate): SiLU. = gate. (s + gate s (1 - s)).
template <typename T>
void SwigluTangent(const Dual<T>& gate_up, const Dual<T>& y, Stream& stream);

// Sums of the residual stream: y += x, y. += x..
template <typename T>
void AddDual(const Dual<T>& x, const Dual<T>& y, Stream& stream);

// q and k heads turn in place, values and tangents alike (the rotation is linear). table: (positions, head_dim / 2, 2)
// of (cos, sin); row t of qkv is position t.
template <typename T>
struct RopeTangentArgs {
  Dual<T> qkv;
  const float* table = nullptr;
  int64_t turned_heads = 0;  // q and k heads, of which the v heads behind them are as many as the k heads
  int64_t head_dim = 0;
};
template <typename T>
void RopeTangent(const RopeTangentArgs<T>& args, Stream& stream);

// Causal attention of kernels/attention/attention.h, in blocks of rows:
//   z = scale q k^T, P = softmax(z), o = P v
//   z. = scale (q. k^T + q k.^T), P. = P (z. - rowsum(P z.)), o. = P. v + P v.
template <typename T>
struct AttentionTangentArgs {
  Dual<T> qkv;  // rows of q heads | k heads | v heads
  Dual<T> o;    // (rows, q_heads * head_dim)
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  const int32_t* kv_of_head = nullptr;  // (q_heads): the KV head that each query head reads; null: regular groups
  float* lse = nullptr;                 // scratch (q_heads, rows) on a CUDA device; not used on the CPU
};
template <typename T>
void AttentionTangent(const AttentionTangentArgs<T>& args, Stream& stream);

}  // namespace trainyard::kernels
