// The chosen elements of a sample's gradient as one vector, scaled by what an optimizer would make of them, and its
// normalisation (influence-distillation.md 2.2, 2.6 and 2.9). Each op is one pass; numbers that later ops need (norms)
// stay on the stream's device, of whose memory all pointers are. `elements` are the numbers of the chosen elements of a
// tensor, in ascending order; null: its first `count`.
//
// Arithmetic is f64 from and to f32 storage. Sums are in an order that the length alone gives, which differs between
// the CPU and a CUDA device. Compiled for sm_90a; has run on the emulated device, not on a GPU.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"

namespace trainyard::kernels {

// y[i] = x[elements[i]].
struct GatherElementsArgs {
  const float* x = nullptr;
  const uint32_t* elements = nullptr;
  int64_t count = 0;
  float* y = nullptr;  // (count)
};
void GatherElements(const GatherElementsArgs& args, Stream& stream);

// x[elements[i]] = base[i] + step * direction[i]. With step 0 it puts `base` back.
struct MoveElementsArgs {
  const float* base = nullptr;       // (count)
  const float* direction = nullptr;  // (count), finite
  double step = 0;
  const uint32_t* elements = nullptr;
  int64_t count = 0;
  float* x = nullptr;
};
void MoveElements(const MoveElementsArgs& args, Stream& stream);

// Gradients y (count) become, in place,
//
//   kFrozen   first y / (sqrt(v / correction) + epsilon)          AdamW's part of the new gradient, with v frozen
//   kLess     (beta1 m + (1 - beta1) y) / sqrt(beta2 v + (1 - beta2) y^2 + epsilon)
//
// m and v by the elements' numbers.
struct ScaleGradientArgs {
  enum class Rule { kFrozen, kLess };
  Rule rule = Rule::kFrozen;
  double first = 1;       // (1 - beta1) / (1 - beta1^t)
  double correction = 1;  // 1 - beta2^t
  double beta1 = 0, beta2 = 0, epsilon = 0;
  const float* m = nullptr;  // not read by kFrozen
  const float* v = nullptr;
  const uint32_t* elements = nullptr;
  int64_t count = 0;
  float* y = nullptr;
};
void ScaleGradient(const ScaleGradientArgs& args, Stream& stream);

// *norm = |x|, or 0 if |x| is not finite or *gate, if it is given, is 0.
struct VectorNormArgs {
  float* x = nullptr;
  int64_t count = 0;
  const double* gate = nullptr;
  double* norm = nullptr;
  double* workspace = nullptr;  // (VectorNormWorkspace(count))
};
int64_t VectorNormWorkspace(int64_t count);
void VectorNorm(const VectorNormArgs& args, Stream& stream);

// x *= 1 / *norm, rounded to f32 before it multiplies, or with keeps_length x stays; where *norm is 0, x becomes 0.
struct DivideByNormArgs {
  float* x = nullptr;
  int64_t count = 0;
  const double* norm = nullptr;
  bool keeps_length = false;
};
void DivideByNorm(const DivideByNormArgs& args, Stream& stream);

}  // namespace trainyard::kernels
