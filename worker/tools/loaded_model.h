// A trained model from disk: a Hugging Face folder, or a checkpoint of a job.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/config.h"
#include "worker/model/parameters.h"

namespace trainyard::tools {

struct LoadedModel {
  model::ModelConfig config;
  kernels::DType dtype = kernels::DType::kF32;
  std::unique_ptr<kernels::Arena> arena;
  model::NetworkTensors weights;                                            // in the arena
  std::unique_ptr<linear::LinearScheme> scheme = linear::MakeFp32Scheme();  // that the weights are for
  std::string tokenizer_directory;
};

// `directory` has a config.json, of floats or of codes (a packed model), or a manifest.json (a checkpoint; its
// tokenizer is that of the job's data set). NotFound if it has neither.
absl::StatusOr<LoadedModel> LoadModel(const std::string& directory, kernels::DType dtype, kernels::Stream& stream);

// "fp32" or "bf16".
absl::StatusOr<kernels::DType> ParseDType(const std::string& name);

}  // namespace trainyard::tools
