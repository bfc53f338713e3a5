#include "worker/linear/quest_operands.h"

#include "base/check.h"
#include "kernels/transform/hadamard.h"

namespace trainyard::linear {
namespace {

using Grid = spec::LinearQuest::Grid;
using GradientMask = spec::LinearQuest::GradientMask;

kernels::QuestMask MaskOf(GradientMask mask) {
  switch (mask) {
    case GradientMask::kTrust:
      return kernels::QuestMask::kTrust;
    case GradientMask::kClip:
      return kernels::QuestMask::kClip;
    case GradientMask::kStraightThrough:
      return kernels::QuestMask::kStraightThrough;
  }
  TY_CHECK(false);
  return {};
}

kernels::QuestClip ClipOf(spec::LinearQuest::Projection projection) {
  switch (projection) {
    case spec::LinearQuest::Projection::kMseClip:
      return kernels::QuestClip::kMse;
    case spec::LinearQuest::Projection::kAbsMax:
      return kernels::QuestClip::kAbsMax;
    case spec::LinearQuest::Projection::kLsq:
      return kernels::QuestClip::kGiven;
  }
  TY_CHECK(false);
  return {};
}

kernels::QuestFormat FormatOf(const spec::LinearQuest& options, Grid grid, int bits) {
  kernels::QuestFormat format;
  format.grid = grid == Grid::kFp4 ? kernels::QuestGrid::kFp4 : kernels::QuestGrid::kInt;
  format.bits = grid == Grid::kInt24 ? 4 : bits;
  format.is_2_4_sparse = grid == Grid::kInt24;
  format.clip = ClipOf(options.projection);
  format.mask = MaskOf(options.gradient_mask);
  format.trust_factor = static_cast<float>(options.trust_factor);
  format.one_bit_outer_scale = static_cast<float>(options.one_bit_outer_scale);
  return format;
}

}  // namespace

QuestOperands OperandsOf(const spec::LinearQuest& options) {
  QuestOperands operands;
  if (options.activation_grid != Grid::kNone) {
    operands.activation.format = FormatOf(options, options.activation_grid, options.activation_bits);
  }
  if (options.weight_grid != Grid::kNone) {
    operands.weight.format = FormatOf(options, options.weight_grid, options.weight_bits);
  }
  const bool is_weight_only = operands.weight.format.has_value() && !operands.activation.format.has_value();
  operands.weight.rotate_group = options.hadamard_dim;
  operands.activation.rotate_group = is_weight_only ? 0 : options.hadamard_dim;
  return operands;
}

void QuestValues(const QuestOperand& operand, const QuestValuesArgs& args, kernels::Stream& stream) {
  if (!operand.format.has_value()) {
    TY_CHECK_NE(operand.rotate_group, 0);
    Hadamard({.x = args.x, .y = args.values, .group = operand.rotate_group}, stream);
    return;
  }
  QuestQuantize({.v = args.x,
                 .format = *operand.format,
                 .rotate_group = operand.rotate_group,
                 .steps = args.steps,
                 .values = args.values,
                 .mask = args.mask},
                stream);
}

}  // namespace trainyard::linear
