#pragma once

#include "kernels/quant/quest.h"

namespace trainyard::kernels::internal {

// What is the same for all rows.
struct QuestPlan {
  QuestFormat format;
  bool is_int;
  float alpha, steps_per_clip, lowest, highest;

  explicit QuestPlan(const QuestFormat& format)
      : format(format),
        is_int(format.grid == QuestGrid::kInt),
        alpha(format.Alpha()),
        steps_per_clip(is_int ? static_cast<float>((1 << format.bits) - 1) * 0.5f : kE2M1Largest),
        lowest(is_int ? 1.0f - static_cast<float>(1 << (format.bits - 1)) : 0.0f),
        highest(1.0f - lowest) {}

  // A row by its given step, by its largest magnitude, by its root mean square.
  TY_INLINE QuestRow OfStep(float step) const { return {step * steps_per_clip, step}; }
  TY_INLINE QuestRow OfLargest(float largest) const { return MakeQuestRow(largest, 1, steps_per_clip); }
  TY_INLINE QuestRow OfRms(float rms) const { return MakeQuestRow(rms, alpha, steps_per_clip); }
};

// When the gradient passes: |v - value| <= limit, or |v| <= limit, or always.
struct QuestPassing {
  enum class Kind { kNear, kInside, kAlways } kind;
  float limit;
};

TY_INLINE QuestPassing QuestPassingOf(const QuestPlan& plan, const QuestRow& row) {
  using Kind = QuestPassing::Kind;
  const QuestFormat& format = plan.format;
  if (format.mask == QuestMask::kStraightThrough) return {Kind::kAlways, 0};
  if (format.mask == QuestMask::kClip) return {Kind::kInside, row.clip};
  if (plan.is_int && format.bits == 1) return {Kind::kInside, format.one_bit_outer_scale * row.clip};
  if (format.trust_factor >= 0) return {Kind::kNear, format.trust_factor * (row.clip / plan.alpha)};
  return {Kind::kNear, plan.is_int ? 0.5f * row.step : row.step};
}

void QuestQuantizeCpu(const QuestQuantizeArgs& args, Stream& stream);
void QuestDequantizeCpu(const QuestDequantizeArgs& args, Stream& stream);
void QuestQuantizeCuda(const QuestQuantizeArgs& args, Stream& stream);
void QuestDequantizeCuda(const QuestDequantizeArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
