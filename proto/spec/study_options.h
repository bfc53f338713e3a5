// The job kind study, typed and with its defaults. Free of protobuf, so that worker/ may include it. Ranges are
// enforced by ParseStudy and stated beside each field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "proto/spec/model_presets.h"

namespace trainyard::v1 {
class StudySpec;
}

namespace trainyard::spec {

class FieldErrors;

// The recipe that eff is relative to.
inline constexpr char kBaselineRecipe[] = "baseline";

struct StudySize {
  std::string name;  // a label, unique; "s<number>" if not given
  LlamaShape shape;  // the job's model.shape with what the size says
};
// What the recipe trains with is in the spec (ExpandStudy).
struct StudyRecipe {
  std::string name;  // a label, unique
};
enum class StudyRateRule { kInverseParameters, kInverseWidth, kSame };
enum class StudyForm { kChinchilla, kOuterExponent };

struct StudyFitOptions {
  StudyForm form = StudyForm::kOuterExponent;
  double huber_delta = 1e-4;  // [1e-6, 0.1]; 1e-3 if not given for kChinchilla
  bool two_stage = true;
  int32_t bootstrap = 500;  // 0..10,000
};
struct StudyPoint {
  double parameters = 0;  // [1, 1e15]
  double tokens = 0;      // [1, 1e18]
};

struct StudyOptions {
  std::vector<StudySize> sizes;              // 3..64, N spanning at least 3x
  std::vector<double> tokens_per_parameter;  // (0, 1e6], 2..64 of them (3 spanning 8x with kOuterExponent), increasing
  std::vector<StudyRecipe> recipes;          // 1..64, "baseline" among them
  std::vector<uint64_t> seeds = {0};         // 1..64, different
  StudyRateRule rate_rule = StudyRateRule::kInverseParameters;
  StudyFitOptions fit;
  int32_t max_parallel = 4;               // 1..100,000
  std::optional<double> max_total_flops;  // > 0
  std::vector<StudyPoint> predict;        // at most 64
};

// Numbers of the blocks and the final norm: N of scaling laws.
int64_t NonEmbeddingParameters(const LlamaShape& shape);

// Tokens that a size is trained on at a ratio, before they are rounded to whole steps.
double StudyTokens(const StudySize& size, double tokens_per_parameter);

// `base` is the job's model.shape, null if the job names its model otherwise.
StudyOptions ParseStudy(const v1::StudySpec& spec, const LlamaShape* base, FieldErrors& errors);

}  // namespace trainyard::spec
