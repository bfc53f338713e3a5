// How a packed model (docs/formats.md) says what it is: `quantization_config` in its config.json, and the names, widths
// and parts of its tensors.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "proto/spec/linear_options.h"

namespace trainyard::model {

inline constexpr char kPackedMethod[] = "trainyard_quest";
inline constexpr int kPackedVersion = 1;

// quantization_config.quant_method of a config.json: empty if it has none. InvalidArgument, naming `path`, if the text
// is no JSON object or the method no string.
absl::StatusOr<std::string> QuantizationMethod(const std::string& config_json, const std::string& path);

// `config_json` with quantization_config added. The weights have a grid; masks are not part of it.
std::string AddQuantization(const std::string& config_json, const spec::LinearQuest& options);

// InvalidArgument that names `path`, the field and its value: another method or version, a field that is missing or out
// of range, a combination that is never packed.
absl::StatusOr<spec::LinearQuest> ParseQuantization(const std::string& config_json, const std::string& path);

// In place of the float tensor `name` of a packed matrix.
inline std::string CodesName(const std::string& name) {
  return name + ".codes";
}
inline std::string StepsName(const std::string& name) {
  return name + ".steps";
}
inline std::string CodeSumsName(const std::string& name) {
  return name + ".code_sums";
}
inline std::string KeptName(const std::string& name) {
  return name + ".kept";
}
// Of learned steps: the activations', beside every matrix that they are multiplied with.
inline std::string ActivationStepName(const std::string& name) {
  return name + ".activation_step";
}
inline bool HasActivationStep(const spec::LinearQuest& options) {
  return options.projection == spec::LinearQuest::Projection::kLsq &&
         options.activation_grid != spec::LinearQuest::Grid::kNone;
}
inline int PackedCodeBits(const spec::LinearQuest& options) {
  return options.weight_grid == spec::LinearQuest::Grid::kInt ? options.weight_bits : 4;
}
inline bool HasCodeSums(const spec::LinearQuest& options) {
  return options.weight_grid == spec::LinearQuest::Grid::kInt;
}
inline bool HasKept(const spec::LinearQuest& options) {
  return options.weight_grid == spec::LinearQuest::Grid::kInt24;
}

}  // namespace trainyard::model
