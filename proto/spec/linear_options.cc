#include "proto/spec/linear_options.h"

#include <algorithm>
#include <initializer_list>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/overloaded.h"
#include "proto/spec/choice.h"
#include "proto/spec/field_errors.h"
#include "proto/spec/patterns.h"
#include "proto/v1/linear.pb.h"

namespace trainyard::spec {
namespace {

int32_t OneOf(FieldErrors& errors, absl::string_view name, int32_t value, std::initializer_list<int32_t> allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return value;
  errors.Add(name, absl::StrCat(value, " is not one of ", absl::StrJoin(allowed, ", ")));
  return *allowed.begin();
}

LinearFp8 ParseFp8(const v1::LinearFp8& spec, FieldErrors& errors) {
  using Format = LinearFp8::GradientFormat;
  return {Choose<v1::LinearFp8::GradientFormat, Format>(
      errors, "gradient_format", spec.gradient_format(),
      {{v1::LinearFp8::GRADIENT_FORMAT_E4M3, Format::kE4M3}, {v1::LinearFp8::GRADIENT_FORMAT_E5M2, Format::kE5M2}})};
}

// `bits` is of the operand that the names belong to.
int32_t ParseQuestBits(FieldErrors& errors, absl::string_view name, LinearQuest::Grid grid, bool given, int32_t bits,
                       int32_t if_unset) {
  if (!given) return if_unset;
  if (grid == LinearQuest::Grid::kInt24 && bits != 4) {
    errors.Add(name, absl::StrCat(bits, " is not 4, the bits of grid int_2_4"));
  } else if (grid != LinearQuest::Grid::kInt && grid != LinearQuest::Grid::kInt24) {
    errors.Add(name, "has an effect with an INT grid only");
  }
  return errors.InRange(name, bits, 1, 8);
}

LinearQuest ParseQuest(const v1::LinearQuest& spec, FieldErrors& errors) {
  using Grid = LinearQuest::Grid;
  using Projection = LinearQuest::Projection;
  using Mask = LinearQuest::GradientMask;
  LinearQuest options;
  const std::initializer_list<std::pair<v1::LinearQuest::Grid, Grid>> grids = {
      {v1::LinearQuest::GRID_INT, Grid::kInt},
      {v1::LinearQuest::GRID_NONE, Grid::kNone},
      {v1::LinearQuest::GRID_FP4_E2M1, Grid::kFp4},
      {v1::LinearQuest::GRID_INT_2_4, Grid::kInt24}};
  options.weight_grid = Choose(errors, "weight_grid", spec.weight_grid(), grids);
  options.activation_grid = Choose(errors, "activation_grid", spec.activation_grid(), grids);
  if (options.activation_grid == Grid::kInt24) errors.Add("activation_grid", "int_2_4 is for weights only");
  options.weight_bits = ParseQuestBits(errors, "weight_bits", options.weight_grid, spec.has_weight_bits(),
                                       spec.weight_bits(), options.weight_bits);
  options.activation_bits = ParseQuestBits(errors, "activation_bits", options.activation_grid,
                                           spec.has_activation_bits(), spec.activation_bits(), options.activation_bits);
  options.projection =
      Choose<v1::LinearQuest::Projection, Projection>(errors, "projection", spec.projection(),
                                                      {{v1::LinearQuest::PROJECTION_MSE_CLIP, Projection::kMseClip},
                                                       {v1::LinearQuest::PROJECTION_ABS_MAX, Projection::kAbsMax},
                                                       {v1::LinearQuest::PROJECTION_LSQ, Projection::kLsq}});
  if (options.projection != Projection::kMseClip) {
    options.hadamard_dim = 0;
    options.gradient_mask = options.projection == Projection::kLsq ? Mask::kClip : Mask::kStraightThrough;
    const auto fits = [](Grid grid) { return grid == Grid::kInt || grid == Grid::kNone; };
    if (!fits(options.weight_grid) || !fits(options.activation_grid)) {
      errors.Add("projection", "abs_max and lsq are for the grids int and none only");
    }
  }
  if (spec.has_hadamard_dim()) {
    options.hadamard_dim = OneOf(errors, "hadamard_dim", spec.hadamard_dim(), {0, 16, 32, 64, 128});
  }
  const Mask default_mask = options.gradient_mask;
  options.gradient_mask = Choose<v1::LinearQuest::GradientMask, Mask>(
      errors, "gradient_mask", spec.gradient_mask(),
      {{v1::LinearQuest::GRADIENT_MASK_UNSPECIFIED, default_mask},
       {v1::LinearQuest::GRADIENT_MASK_TRUST, Mask::kTrust},
       {v1::LinearQuest::GRADIENT_MASK_CLIP, Mask::kClip},
       {v1::LinearQuest::GRADIENT_MASK_STRAIGHT_THROUGH, Mask::kStraightThrough}});
  if (options.projection != Projection::kMseClip && options.gradient_mask == Mask::kTrust) {
    errors.Add("gradient_mask", "trust is defined for projection mse_clip only");
  }
  if (options.projection == Projection::kLsq && options.gradient_mask != Mask::kClip) {
    errors.Add("gradient_mask", "lsq is defined with clip only");
  }
  if (spec.has_trust_factor()) {
    options.trust_factor = errors.InRangeAbove("trust_factor", spec.trust_factor(), 0, 10);
    if (options.gradient_mask != Mask::kTrust)
      errors.Add("trust_factor", "has an effect with gradient_mask trust only");
  }
  if (options.hadamard_dim == 0) options.one_bit_outer_scale = 1.25;
  if (spec.has_one_bit_outer_scale()) {
    options.one_bit_outer_scale = errors.InRange("one_bit_outer_scale", spec.one_bit_outer_scale(), 1, 2);
    const bool has_one_bit = (options.weight_grid == Grid::kInt && options.weight_bits == 1) ||
                             (options.activation_grid == Grid::kInt && options.activation_bits == 1);
    if (!has_one_bit) errors.Add("one_bit_outer_scale", "has an effect with 1 bit only");
  }
  return options;
}

LinearQuartet ParseQuartet(const v1::LinearQuartet& spec, FieldErrors& errors) {
  using Wire = v1::LinearQuartet;
  LinearQuartet options;
  options.backward_rounding = Choose<Wire::BackwardRounding, LinearQuartet::Rounding>(
      errors, "backward_rounding", spec.backward_rounding(),
      {{Wire::BACKWARD_ROUNDING_NEAREST, LinearQuartet::Rounding::kNearest},
       {Wire::BACKWARD_ROUNDING_STOCHASTIC, LinearQuartet::Rounding::kStochastic}});
  if (spec.has_forward_hadamard_dim()) {
    options.forward_hadamard_dim = OneOf(errors, "forward_hadamard_dim", spec.forward_hadamard_dim(), {0, 32});
  }
  if (spec.has_backward_hadamard_dim()) {
    options.backward_hadamard_dim =
        OneOf(errors, "backward_hadamard_dim", spec.backward_hadamard_dim(), {0, 32, 64, 128});
  }
  options.scale_rule =
      Choose<Wire::ScaleRule, LinearQuartet::ScaleRule>(errors, "scale_rule", spec.scale_rule(),
                                                        {{Wire::SCALE_RULE_FLOOR, LinearQuartet::ScaleRule::kFloor},
                                                         {Wire::SCALE_RULE_NEAREST, LinearQuartet::ScaleRule::kNearest},
                                                         {Wire::SCALE_RULE_CEIL, LinearQuartet::ScaleRule::kCeil}});
  options.scale_statistic = Choose<Wire::ScaleStatistic, LinearQuartet::ScaleStatistic>(
      errors, "scale_statistic", spec.scale_statistic(),
      {{Wire::SCALE_STATISTIC_STD, LinearQuartet::ScaleStatistic::kStd},
       {Wire::SCALE_STATISTIC_RMS, LinearQuartet::ScaleStatistic::kRms}});
  options.forward_method = Choose<Wire::ForwardMethod, LinearQuartet::ForwardMethod>(
      errors, "forward_method", spec.forward_method(),
      {{Wire::FORWARD_METHOD_QUEST, LinearQuartet::ForwardMethod::kQuest},
       {Wire::FORWARD_METHOD_ABS_MAX_NEAREST, LinearQuartet::ForwardMethod::kAbsMaxNearest},
       {Wire::FORWARD_METHOD_ABS_MAX_STOCHASTIC, LinearQuartet::ForwardMethod::kAbsMaxStochastic},
       {Wire::FORWARD_METHOD_NONE, LinearQuartet::ForwardMethod::kNone}});
  options.backward_method = Choose<Wire::BackwardMethod, LinearQuartet::BackwardMethod>(
      errors, "backward_method", spec.backward_method(),
      {{Wire::BACKWARD_METHOD_ABS_MAX, LinearQuartet::BackwardMethod::kAbsMax},
       {Wire::BACKWARD_METHOD_NONE, LinearQuartet::BackwardMethod::kNone}});
  if (spec.has_apply_mask()) options.apply_mask = spec.apply_mask();

  const auto has_no_effect = [&](bool given, absl::string_view name, absl::string_view with) {
    if (given) errors.Add(name, absl::StrCat("has an effect with ", with, " only"));
  };
  if (options.forward_method != LinearQuartet::ForwardMethod::kQuest) {
    has_no_effect(spec.scale_rule() != 0, "scale_rule", "forward_method quest");
    has_no_effect(spec.scale_statistic() != 0, "scale_statistic", "forward_method quest");
    has_no_effect(spec.has_apply_mask(), "apply_mask", "forward_method quest");
  }
  if (options.backward_method == LinearQuartet::BackwardMethod::kNone) {
    has_no_effect(spec.backward_rounding() != 0, "backward_rounding", "backward_method abs_max");
    has_no_effect(spec.has_backward_hadamard_dim(), "backward_hadamard_dim", "backward_method abs_max");
  }
  return options;
}

LinearQuartet2 ParseQuartet2(const v1::LinearQuartet2& spec, FieldErrors& errors) {
  using Wire = v1::LinearQuartet2;
  using Recipe = LinearQuartet2::Recipe;
  using Block = LinearQuartet2::WeightBlock;
  using Backward = LinearQuartet2::BackwardQuantizer;
  LinearQuartet2 options;
  options.recipe = Choose<Wire::Recipe, Recipe>(errors, "recipe", spec.recipe(),
                                                {{Wire::RECIPE_QUARTET2, Recipe::kQuartet2},
                                                 {Wire::RECIPE_NVIDIA, Recipe::kNvidia},
                                                 {Wire::RECIPE_TETRAJET_V2, Recipe::kTetraJetV2}});
  if (options.recipe != Recipe::kQuartet2) {
    options.four_over_six = spec.four_over_six();
    if (options.recipe == Recipe::kTetraJetV2 && options.four_over_six) {
      errors.Add("four_over_six", "true is not defined for recipe tetrajet_v2");
    }
    const bool fixes_others = spec.weight_block() == 0 && spec.backward_quantizer() == 0 && !spec.has_hadamard_dim() &&
                              !spec.has_eden_group() && !spec.has_eden_clip() && !spec.has_requantize_weight() &&
                              !spec.has_forward_enabled() && !spec.has_backward_enabled();
    if (!fixes_others) {
      errors.Add("recipe", "nvidia and tetrajet_v2 fix all other fields but four_over_six (of nvidia)");
    }
    return options;
  }
  if (spec.has_four_over_six()) options.four_over_six = spec.four_over_six();
  options.weight_block = Choose<Wire::WeightBlock, Block>(
      errors, "weight_block", spec.weight_block(),
      {{Wire::WEIGHT_BLOCK_NATIVE_1X16, Block::k1x16}, {Wire::WEIGHT_BLOCK_SQUARE_16X16, Block::k16x16}});
  options.backward_quantizer =
      Choose<Wire::BackwardQuantizer, Backward>(errors, "backward_quantizer", spec.backward_quantizer(),
                                                {{Wire::BACKWARD_QUANTIZER_MS_EDEN, Backward::kMsEden},
                                                 {Wire::BACKWARD_QUANTIZER_STOCHASTIC, Backward::kStochastic},
                                                 {Wire::BACKWARD_QUANTIZER_NEAREST, Backward::kNearest},
                                                 {Wire::BACKWARD_QUANTIZER_NONE, Backward::kNone}});
  if (spec.has_hadamard_dim()) {
    options.hadamard_dim = OneOf(errors, "hadamard_dim", spec.hadamard_dim(), {16, 32, 64, 128});
  }
  if (spec.has_eden_group()) options.eden_group = OneOf(errors, "eden_group", spec.eden_group(), {16, 128});
  if (spec.has_eden_clip()) options.eden_clip = errors.InRange("eden_clip", spec.eden_clip(), 4, 8);
  if (options.backward_quantizer != Backward::kMsEden && (spec.has_eden_group() || spec.has_eden_clip())) {
    errors.Add(spec.has_eden_group() ? "eden_group" : "eden_clip",
               "has an effect with backward_quantizer ms_eden only");
  }
  if (options.eden_group == 128 && options.hadamard_dim != 128) {
    errors.Add("eden_group", absl::StrCat("128 needs hadamard_dim 128, which is ", options.hadamard_dim));
  }
  if (spec.has_requantize_weight()) options.requantize_weight = spec.requantize_weight();
  if (!options.requantize_weight &&
      (options.weight_block != Block::k16x16 || options.backward_quantizer != Backward::kStochastic)) {
    errors.Add("requantize_weight",
               "false needs weight_block square_16x16 and backward_quantizer stochastic: other codes do not transpose, "
               "and ms_eden rotates both operands");
  }
  if (spec.has_forward_enabled()) options.forward_enabled = spec.forward_enabled();
  if (spec.has_backward_enabled()) options.backward_enabled = spec.backward_enabled();
  return options;
}

}  // namespace

LinearMultiples MultiplesOf(const LinearOptions& options) {
  return std::visit(
      Overloaded{
          [](const LinearFp32&) { return LinearMultiples{}; },
          [](const LinearBf16&) { return LinearMultiples{}; },
          [](const LinearFp8&) { return LinearMultiples{}; },
          [](const LinearQuest& quest) {
            const int64_t pairs = quest.weight_grid == LinearQuest::Grid::kInt24 ? 8 : 1;
            return LinearMultiples{.in = std::max<int64_t>(pairs, quest.hadamard_dim)};
          },
          [](const LinearQuartet& quartet) {
            LinearMultiples multiples{.in = 32};
            if (quartet.backward_method == LinearQuartet::BackwardMethod::kAbsMax) {
              multiples.out = multiples.rows = std::max<int64_t>(32, quartet.backward_hadamard_dim);
            }
            return multiples;
          },
          [](const LinearQuartet2& quartet2) {
            LinearMultiples multiples{.in = 16};
            if (quartet2.recipe == LinearQuartet2::Recipe::kNvidia) return LinearMultiples{16, 16, 16};
            if (quartet2.recipe == LinearQuartet2::Recipe::kTetraJetV2) return LinearMultiples{16, 32, 32};
            if (quartet2.weight_block == LinearQuartet2::WeightBlock::k16x16) multiples.out = 16;
            if (quartet2.backward_enabled && quartet2.backward_quantizer != LinearQuartet2::BackwardQuantizer::kNone) {
              multiples.out = multiples.rows = quartet2.hadamard_dim;
            }
            return multiples;
          },
      },
      options.scheme);
}

std::vector<LinearLayerShape> LinearLayersOf(const LlamaShape& shape) {
  const int64_t queries = int64_t{shape.num_attention_heads} * shape.head_dim;
  const int64_t keys = int64_t{shape.num_key_value_heads} * shape.head_dim;
  return {{"qkv", shape.hidden_size, queries + 2 * keys},
          {"output", queries, shape.hidden_size},
          {"gate_up", shape.hidden_size, 2 * int64_t{shape.intermediate_size}},
          {"down", shape.intermediate_size, shape.hidden_size}};
}

std::string SchemeName(const LinearOptions& options) {
  return std::visit(Overloaded{
                        [](const LinearFp32&) { return "fp32"; },
                        [](const LinearBf16&) { return "bf16"; },
                        [](const LinearFp8&) { return "fp8"; },
                        [](const LinearQuest&) { return "quest"; },
                        [](const LinearQuartet&) { return "quartet"; },
                        [](const LinearQuartet2&) { return "quartet2"; },
                    },
                    options.scheme);
}

LinearOptions ParseLinear(const v1::LinearScheme& spec, FieldErrors& errors) {
  LinearOptions options;
  options.exclude = ParsePatterns(spec.exclude(), "exclude", errors);
  switch (spec.scheme_case()) {
    case v1::LinearScheme::kBf16:
      options.scheme = LinearBf16{};
      break;
    case v1::LinearScheme::kFp8: {
      FieldErrors inner = errors.In("fp8");
      options.scheme = ParseFp8(spec.fp8(), inner);
      break;
    }
    case v1::LinearScheme::kQuest: {
      FieldErrors inner = errors.In("quest");
      options.scheme = ParseQuest(spec.quest(), inner);
      break;
    }
    case v1::LinearScheme::kQuartet: {
      FieldErrors inner = errors.In("quartet");
      options.scheme = ParseQuartet(spec.quartet(), inner);
      break;
    }
    case v1::LinearScheme::kQuartet2: {
      FieldErrors inner = errors.In("quartet2");
      options.scheme = ParseQuartet2(spec.quartet2(), inner);
      break;
    }
    case v1::LinearScheme::kFp32:
    case v1::LinearScheme::SCHEME_NOT_SET:
      break;
  }
  return options;
}

}  // namespace trainyard::spec
