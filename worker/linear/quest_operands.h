// What QuEST does to the two operands of a layer's products (quest.md 2.3), from a job's options: shared by the
// training scheme and by the evaluation of packed models.
//
//   both grids:        x_h = x H, w_h = w H, both quantized; y = x_hat w_hat^T
//   weights only:      x stays as it is; w_h = w H, quantized; y = x w_hat^T, a network of its own (quest.md 2.3, A16)
//   activations only:  x_h = x H, quantized; w_h = w H
//   neither:           x_h, w_h: the dense layer, up to rounding
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/quant/quest.h"
#include "proto/spec/linear_options.h"

namespace trainyard::linear {

struct QuestOperand {
  int64_t rotate_group = 0;                    // 0: not rotated
  std::optional<kernels::QuestFormat> format;  // none: not quantized

  bool is_as_stored() const { return rotate_group == 0 && !format.has_value(); }
  bool learns_step() const { return format.has_value() && format->clip == kernels::QuestClip::kGiven; }
  // Whether the gradient of the operand must pass a mask.
  bool has_mask() const { return format.has_value() && format->mask != kernels::QuestMask::kStraightThrough; }
};
struct QuestOperands {
  QuestOperand activation, weight;
};
QuestOperands OperandsOf(const spec::LinearQuest& options);

// The places of a layer's learned steps (projection lsq) in LinearCall::parameters.
enum QuestStep : int64_t { kWeightStep, kActivationStep };
inline constexpr int64_t kQuestSteps = 2;

// x_hat: f32 or bf16, of the shape of x. steps: f32 (rows), an input if learns_step(). mask: u8 (rows,
// PackedBytes(cols, 1)), or absent. An operand that is as stored is not to be asked for.
struct QuestValuesArgs {
  kernels::TensorView x;
  kernels::TensorView values, steps;
  kernels::TensorView mask = {};
};
void QuestValues(const QuestOperand& operand, const QuestValuesArgs& args, kernels::Stream& stream);

}  // namespace trainyard::linear
