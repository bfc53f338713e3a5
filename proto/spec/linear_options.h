// The linear schemes as plain values with their defaults, and the sizes of layers that each is defined for. Ranges are
// enforced by the parser in linear_options.cc and are stated here beside each field. No protobuf in this header.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "proto/spec/model_presets.h"

namespace trainyard::v1 {
class LinearScheme;
}

namespace trainyard::spec {

class FieldErrors;

struct LinearFp32 {};  // needs model.dtype fp32
struct LinearBf16 {};

struct LinearFp8 {
  enum class GradientFormat { kE4M3, kE5M2 };
  GradientFormat gradient_format = GradientFormat::kE4M3;
};

struct LinearQuest {
  enum class Grid { kNone, kInt, kFp4, kInt24 };  // kInt24: weights only, in 4 bits
  enum class Projection { kMseClip, kAbsMax, kLsq };
  enum class GradientMask { kTrust, kClip, kStraightThrough };

  Grid weight_grid = Grid::kInt;
  Grid activation_grid = Grid::kInt;
  int32_t weight_bits = 4;      // 1..8, of kInt
  int32_t activation_bits = 4;  // 1..8, of kInt
  int32_t hadamard_dim = 128;   // 0, 16, 32, 64, 128
  // kAbsMax and kLsq are the rivals: of INT grids; hadamard_dim is 0 unless given, the mask straight through (kAbsMax)
  // or the clip's (kLsq).
  Projection projection = Projection::kMseClip;
  GradientMask gradient_mask = GradientMask::kTrust;
  double trust_factor = -1;           // (0, 10] in units of the row's root mean square; -1: half the widest gap
  double one_bit_outer_scale = 1.30;  // 1..2; 1.25 without rotation
};

struct LinearQuartet {
  enum class Rounding { kNearest, kStochastic };
  enum class ScaleRule { kFloor, kNearest, kCeil };
  enum class ScaleStatistic { kStd, kRms };
  enum class ForwardMethod { kQuest, kAbsMaxNearest, kAbsMaxStochastic, kNone };
  enum class BackwardMethod { kAbsMax, kNone };

  Rounding backward_rounding = Rounding::kNearest;
  int32_t forward_hadamard_dim = 32;   // 0, 32
  int32_t backward_hadamard_dim = 32;  // 0, 32, 64, 128
  ScaleRule scale_rule = ScaleRule::kFloor;
  ScaleStatistic scale_statistic = ScaleStatistic::kStd;
  ForwardMethod forward_method = ForwardMethod::kQuest;
  BackwardMethod backward_method = BackwardMethod::kAbsMax;
  bool apply_mask = true;
};

struct LinearQuartet2 {
  enum class Recipe { kQuartet2, kNvidia, kTetraJetV2 };
  enum class WeightBlock { k1x16, k16x16 };
  enum class BackwardQuantizer { kMsEden, kStochastic, kNearest, kNone };

  // A rival's recipe fixes everything but four_over_six (kNvidia only, false unless given).
  Recipe recipe = Recipe::kQuartet2;
  bool four_over_six = true;
  WeightBlock weight_block = WeightBlock::k1x16;
  BackwardQuantizer backward_quantizer = BackwardQuantizer::kMsEden;
  int32_t hadamard_dim = 128;       // 16, 32, 64, 128
  int32_t eden_group = 16;          // 16, 128
  double eden_clip = 6.0721062599;  // 4..8
  // False keeps the forward's weight codes for dX: with square blocks and stochastic rounding only.
  bool requantize_weight = true;
  bool forward_enabled = true;
  bool backward_enabled = true;
};

struct LinearOptions {
  std::variant<LinearFp32, LinearBf16, LinearFp8, LinearQuest, LinearQuartet, LinearQuartet2> scheme;
  std::vector<std::string> exclude;  // at most 64 patterns of 1..200 characters
};

// What the sizes of a layer must be multiples of: y (rows, out) = x (rows, in) w^T. A forward alone takes any rows.
struct LinearMultiples {
  int64_t in = 1;
  int64_t out = 1;
  int64_t rows = 1;
};
LinearMultiples MultiplesOf(const LinearOptions& options);

// The linear layers of a model's blocks, which are alike in all blocks.
struct LinearLayerShape {
  std::string name;  // "qkv"
  int64_t in = 0;
  int64_t out = 0;
};
std::vector<LinearLayerShape> LinearLayersOf(const LlamaShape& shape);

// "quest", as in the spec.
std::string SchemeName(const LinearOptions& options);

// Adds all problems to `errors`, whose path is that of the message.
LinearOptions ParseLinear(const v1::LinearScheme& spec, FieldErrors& errors);

}  // namespace trainyard::spec
