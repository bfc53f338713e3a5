// Models as folders in Hugging Face layout: config.json, model.safetensors (or shards with
// model.safetensors.index.json), generation_config.json and the tokenizer's files.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "worker/model/config.h"
#include "worker/model/parameters.h"
#include "worker/model/safetensors.h"

namespace trainyard::model {

// NotFound if the folder has no config.json; else as ParseConfigJson. End-of-text ids of generation_config.json, if
// there is one, come on top.
absl::StatusOr<ModelConfig> ReadConfig(const std::string& directory);

// Fills `tensors` (f32 or bf16, as ListParameters) from F32, F16 or BF16 files, rounding to nearest even.
// InvalidArgument names the first tensor that is missing, has another shape than config.json says, or belongs to no
// part of this network; DataLoss for damaged files.
// A folder whose weights are codes (quantization_config) is refused.
// `on_tensor`, if given, is called when a tensor is filled and before the next one is: some may share memory.
absl::Status ImportWeights(const std::string& directory, const ModelConfig& config,
                           const std::vector<kernels::TensorView>& tensors, kernels::Stream& stream,
                           const std::function<void(size_t tensor)>& on_tensor = nullptr);

// One tensor of a file into `out` (f32 or bf16), which must have its shape; errors as ImportWeights.
absl::Status ImportTensor(const SafetensorsReader& file, const std::string& name, const kernels::TensorView& out,
                          kernels::Stream& stream);

struct ExportOptions {
  std::string directory;         // made if needed; files in it are replaced
  std::string tokenizer_source;  // folder whose tokenizer files are copied; may be empty
};

// Writes the whole folder. `tensors`: f32 or bf16, as ListParameters. Returns the bytes of all files.
absl::StatusOr<int64_t> ExportModel(const ModelConfig& config, const std::vector<kernels::TensorView>& tensors,
                                    const ExportOptions& options);

// The folder without the weights, with the given text as its config.json. Returns the bytes of all files.
absl::StatusOr<int64_t> ExportWithoutWeights(const ModelConfig& config, const std::string& config_json,
                                             const ExportOptions& options);

}  // namespace trainyard::model
