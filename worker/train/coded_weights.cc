#include "worker/train/coded_weights.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/pattern.h"
#include "worker/model/linear_sites.h"

namespace trainyard::train {
namespace {

using kernels::Arena;
using kernels::CodedMatrix;
using kernels::DType;
using kernels::TensorView;
using Format = spec::EcoOptions::WeightFormat;
using Granularity = spec::EcoOptions::Granularity;

bool IsCoded(const spec::EcoOptions& options, const model::Parameter& parameter, int last_layer) {
  const bool is_block_matrix = parameter.is_matrix() && parameter.layer >= 1 && parameter.layer < last_layer;
  return is_block_matrix && (options.quantize.empty() || MatchesAny(options.quantize, parameter.name));
}

// Elements of a row that share a scale; 0: all rows do.
int64_t GroupOf(Granularity granularity, int64_t cols) {
  switch (granularity) {
    case Granularity::kRow:
      return cols;
    case Granularity::kGroup32:
      return 32;
    case Granularity::kGroup128:
      return 128;
    case Granularity::kTensor:
      return 0;
  }
  return cols;
}

CodedMatrix AllocateCoded(const spec::EcoOptions& options, const model::Parameter& parameter, Arena& arena) {
  const int64_t rows = parameter.shape[0], cols = parameter.shape[1];
  const bool is_int4 = options.weight_format == Format::kInt4;
  const int64_t group = GroupOf(options.scale_granularity, cols);
  CodedMatrix coded;
  coded.codes = is_int4 ? arena.Allocate("weights", DType::kU8, {rows, cols / 2})
                        : arena.Allocate("weights", DType::kF8E4M3, {rows, cols});
  const DType scale_dtype = is_int4 ? DType::kF16 : DType::kF32;
  coded.scales = group == 0 ? arena.Allocate("weights", scale_dtype, {1, 1})
                            : arena.Allocate("weights", scale_dtype, {rows, cols / group});
  return coded;
}

TensorView Shaped(void* data, DType dtype, const model::Parameter& parameter) {
  return parameter.is_matrix() ? TensorView(data, dtype, {parameter.shape[0], parameter.shape[1]})
                               : TensorView(data, dtype, {parameter.shape[0]});
}

}  // namespace

absl::Status CheckCodedWeights(const spec::OptimizerOptions& options, const std::vector<model::Parameter>& parameters) {
  const auto* const eco = std::get_if<spec::EcoOptions>(&options);
  if (eco == nullptr) return absl::OkStatus();
  const int last_layer = parameters.back().layer;
  bool has_any = false;
  for (const model::Parameter& parameter : parameters) {
    if (!IsCoded(*eco, parameter, last_layer)) continue;
    has_any = true;
    const int64_t cols = parameter.shape[1];
    const int64_t group = GroupOf(eco->scale_granularity, cols);
    if (group > 0 && cols % group != 0) {
      return absl::InvalidArgumentError(absl::StrCat("training.optimizer.eco.scale_granularity: ", parameter.name,
                                                     " has rows of ", cols, ", which groups of ", group,
                                                     " do not divide"));
    }
    if (eco->weight_format == Format::kInt4 && cols % 2 != 0) {
      return absl::InvalidArgumentError(absl::StrCat("training.optimizer.eco.weight_format: ", parameter.name,
                                                     " has rows of ", cols, "; int4 wants an even number"));
    }
  }
  if (!has_any) {
    return absl::InvalidArgumentError("training.optimizer.eco.quantize: no pattern matches a matrix of a block");
  }
  return absl::OkStatus();
}

TrainedWeights AllocateTrainedWeights(const model::ModelConfig& config, DType dtype,
                                      const spec::OptimizerOptions& options, Arena& arena, MasterOptions masters) {
  const auto* const eco = std::get_if<spec::EcoOptions>(&options);
  const std::vector<model::Parameter> parameters = ListParameters(config);
  const int last_layer = parameters.back().layer;
  TrainedWeights weights;
  weights.parts = std::move(masters.parts);
  TY_CHECK(weights.parts.empty() || (eco == nullptr && weights.parts.size() == parameters.size()));
  const auto allocate_master = [&](int64_t elements) {
    return masters.on_host ? arena.AllocateShared("master", DType::kF32, {elements})
                           : arena.Allocate("master", DType::kF32, {elements});
  };
  std::vector<TensorView> values;
  for (const model::Parameter& parameter : parameters) {
    weights.coded.emplace_back();
    weights.masters.emplace_back();
    if (eco != nullptr && IsCoded(*eco, parameter, last_layer)) {
      weights.coded.back() = AllocateCoded(*eco, parameter, arena);
      values.push_back(Shaped(nullptr, dtype, parameter));
      continue;
    }
    values.push_back(Shaped(arena.Allocate("weights", dtype, {parameter.size()}).data(), dtype, parameter));
    if (dtype == DType::kF32) continue;
    if (!weights.parts.empty()) {
      const comm::Part& part = weights.parts[weights.masters.size() - 1];
      if (part.size() > 0) weights.masters.back() = allocate_master(part.size());
      continue;
    }
    weights.masters.back() = Shaped(allocate_master(parameter.size()).data(), DType::kF32, parameter);
  }
  weights.values = BindTensors(config, std::move(values));
  return weights;
}

void AppendWeightState(const TrainedWeights& weights, size_t parameter, const std::string& name,
                       std::vector<optim::NamedTensor>* state) {
  if (weights.coded[parameter]) {
    state->push_back({absl::StrCat("weight.codes/", name), weights.coded[parameter].codes});
    state->push_back({absl::StrCat("weight.scales/", name), weights.coded[parameter].scales});
  } else if (!weights.parts.empty() && weights.values.all[parameter].dtype() != DType::kF32) {
    const comm::Part& part = weights.parts[parameter];
    if (part.size() == 0) return;
    state->push_back({.name = absl::StrCat("weight/", name),
                      .tensor = weights.masters[parameter],
                      .part_begin = part.begin,
                      .whole_size = weights.values.all[parameter].size()});
  } else {
    const TensorView& master = weights.masters[parameter];
    state->push_back({absl::StrCat("weight/", name), master ? master : weights.values.all[parameter]});
  }
}

std::vector<CodedMatrix> CodedBySite(const model::ModelConfig& config, const TrainedWeights& weights) {
  std::map<std::string, CodedMatrix> by_name;
  const std::vector<model::Parameter> parameters = ListParameters(config);
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (weights.coded[i]) by_name[parameters[i].name] = weights.coded[i];
  }
  std::vector<CodedMatrix> by_site;
  if (by_name.empty()) return by_site;
  ForEachSite(model::ListLinearSites(config, /*rows=*/1, DType::kF32), [&](const linear::LinearSite& site) {
    // Blocks without attention or MLP leave numbers out.
    by_site.resize(site.index + 1);
    const auto found = by_name.find(absl::StrCat(site.name, ".weight"));
    if (found != by_name.end()) by_site.back() = found->second;
  });
  return by_site;
}

}  // namespace trainyard::train
