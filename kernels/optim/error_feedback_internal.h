#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/simd.h"
#include "kernels/optim/error_feedback.h"

namespace trainyard::kernels::internal {

// The codes of a row between its extremes; where these are equal all codes are 0. No expression here has the form a * b
// + c, and fused operations are written out: the same codes on every device.
struct FeedbackGrid {
  TY_INLINE FeedbackGrid(int bits, float row_min, float row_max)
      : levels(static_cast<float>((1 << bits) - 1)), min(row_min), unit((row_max - row_min) / levels) {}

  TY_INLINE uint8_t Code(float x) const {
    const float divisor = unit > 0 ? unit : 1.0f;
    const float scale = unit > 0 ? 1.0f : 0.0f;
    const float position = scale * (x - min) / divisor + 0.5f;
    return static_cast<uint8_t>(static_cast<int32_t>(position < levels ? position : levels));
  }
  TY_INLINE float Value(uint8_t code) const {
    return std::fma(static_cast<float>(static_cast<int32_t>(code)), unit, min);
  }

  float levels, min, unit;
};

TY_INLINE float AddFeedbackElement(float factor, float gradient, float value) {
  return std::fma(factor, gradient, value);
}

void AddFeedbackCpu(const AddFeedbackArgs& args, Stream& stream);
void KeepResidualCpu(const KeepResidualArgs& args, Stream& stream);
void AddFeedbackCuda(const AddFeedbackArgs& args, Stream& stream);
void KeepResidualCuda(const KeepResidualArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
