// The backends of tangents, and the formulas that they share.
#pragma once

#include "kernels/core/simd.h"
#include "kernels/tangent/tangent_ops.h"

namespace trainyard::kernels::internal {

// inverse = 1 / r, shrink = r. / r^2.
template <typename T>
TY_INLINE T RmsNormTangentValue(T x, T x_dot, T w, T w_dot, T inverse, T shrink) {
  return w_dot * x * inverse + w * (x_dot * inverse - x * shrink);
}

// s = sigmoid(gate).
template <typename T>
TY_INLINE T SwigluTangentValue(T gate, T up, T gate_dot, T up_dot, T s) {
  const T silu = gate * s;
  return up_dot * silu + up * gate_dot * (s + silu * (1 - s));
}

template <typename T>
void EmbeddingTangentOnHost(const EmbeddingTangentArgs<T>& args);
template <typename T>
void LinearTangentOnHost(const LinearTangentArgs<T>& args);
template <typename T>
void AddWeightTangentOnHost(const WeightTangentArgs<T>& args);
template <typename T>
void RmsNormTangentOnHost(const RmsNormTangentArgs<T>& args);
template <typename T>
void SwigluTangentOnHost(const Dual<T>& gate_up, const Dual<T>& y);
template <typename T>
void AddDualOnHost(const Dual<T>& x, const Dual<T>& y);
template <typename T>
void RopeTangentOnHost(const RopeTangentArgs<T>& args);
template <typename T>
void AttentionTangentOnHost(const AttentionTangentArgs<T>& args);

void EmbeddingTangentCpu(const EmbeddingTangentArgs<float>& args, Stream& stream);
void LinearTangentCpu(const LinearTangentArgs<float>& args, Stream& stream);
void AddWeightTangentCpu(const WeightTangentArgs<float>& args, Stream& stream);
void RmsNormTangentCpu(const RmsNormTangentArgs<float>& args, Stream& stream);
void SwigluTangentCpu(const Dual<float>& gate_up, const Dual<float>& y, Stream& stream);
void AddDualCpu(const Dual<float>& x, const Dual<float>& y, Stream& stream);
void RopeTangentCpu(const RopeTangentArgs<float>& args, Stream& stream);
void AttentionTangentCpu(const AttentionTangentArgs<float>& args, Stream& stream);

void EmbeddingTangentCuda(const EmbeddingTangentArgs<float>& args, Stream& stream);
void LinearTangentCuda(const LinearTangentArgs<float>& args, Stream& stream);
void AddWeightTangentCuda(const WeightTangentArgs<float>& args, Stream& stream);
void RmsNormTangentCuda(const RmsNormTangentArgs<float>& args, Stream& stream);
void SwigluTangentCuda(const Dual<float>& gate_up, const Dual<float>& y, Stream& stream);
void AddDualCuda(const Dual<float>& x, const Dual<float>& y, Stream& stream);
void RopeTangentCuda(const RopeTangentArgs<float>& args, Stream& stream);
void AttentionTangentCuda(const AttentionTangentArgs<float>& args, Stream& stream);

}  // namespace trainyard::kernels::internal
