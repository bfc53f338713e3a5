// The backends of gradient vectors, and the formulas that they share.
#pragma once

#include <cmath>

#include "kernels/core/simd.h"
#include "kernels/influence/gradient_vector.h"

namespace trainyard::kernels::internal {

inline constexpr int64_t kSquaresBlock = 1 << 15;  // elements of a partial sum

TY_INLINE int64_t ElementAt(const uint32_t* elements, int64_t i) {
  return elements == nullptr ? i : int64_t{elements[i]};
}

TY_INLINE float MovedElement(float base, float direction, double step) {
  return static_cast<float>(static_cast<double>(base) + step * static_cast<double>(direction));
}

TY_INLINE float ScaledGradient(const ScaleGradientArgs& args, int64_t element, float gradient) {
  const double g = static_cast<double>(gradient);
  const double v = static_cast<double>(args.v[element]);
  if (args.rule == ScaleGradientArgs::Rule::kFrozen) {
    return static_cast<float>(args.first / (std::sqrt(v / args.correction) + args.epsilon) * g);
  }
  const double m = static_cast<double>(args.m[element]);
  return static_cast<float>((args.beta1 * m + (1 - args.beta1) * g) /
                            std::sqrt(args.beta2 * v + (1 - args.beta2) * g * g + args.epsilon));
}

TY_INLINE double UsableNorm(double squares, const double* gate) {
  const double norm = std::sqrt(squares);
  const bool is_finite = norm - norm == 0.0;
  return is_finite && (gate == nullptr || *gate > 0.0) ? norm : 0.0;
}

TY_INLINE float DividedByNorm(float x, double norm, bool keeps_length) {
  if (!(norm > 0.0)) return 0.0f;
  return keeps_length ? x : x * static_cast<float>(1.0 / norm);
}

void GatherElementsCpu(const GatherElementsArgs& args, Stream& stream);
void MoveElementsCpu(const MoveElementsArgs& args, Stream& stream);
void ScaleGradientCpu(const ScaleGradientArgs& args, Stream& stream);
void StoreUsableNormCpu(const VectorNormArgs& args, int64_t partials, Stream& stream);
void DivideByNormCpu(const DivideByNormArgs& args, Stream& stream);

void GatherElementsCuda(const GatherElementsArgs& args, Stream& stream);
void MoveElementsCuda(const MoveElementsArgs& args, Stream& stream);
void ScaleGradientCuda(const ScaleGradientArgs& args, Stream& stream);
void StoreUsableNormCuda(const VectorNormArgs& args, int64_t partials, Stream& stream);
void DivideByNormCuda(const DivideByNormArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
