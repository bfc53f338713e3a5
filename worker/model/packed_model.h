// Models whose block matrices are QuEST codes instead of floats: a folder in Hugging Face layout with
// quantization_config (docs/formats.md). Written from a trained network, read back for evaluation.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "proto/spec/linear_options.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/config.h"
#include "worker/model/hugging_face.h"
#include "worker/model/parameters.h"

namespace trainyard::model {

// Quantizes and writes the whole folder. `tensors`: f32 or bf16, as ListParameters: the weights that the network
// computed with; `config` with site_parameters if it learned steps (projection lsq). Layers that match `exclude` (names
// of LinearSite) are written as floats. Returns the bytes of all files. The weights have a grid, and the sizes are such
// that the scheme is defined (CheckSite).
absl::StatusOr<int64_t> ExportPackedModel(const ModelConfig& config, const spec::LinearQuest& options,
                                          const std::vector<std::string>& exclude,
                                          const std::vector<kernels::TensorView>& tensors,
                                          const ExportOptions& export_options, kernels::Stream& stream);

struct PackedModel {
  ModelConfig config;
  spec::LinearQuest options;
  std::unique_ptr<kernels::Arena> arena;
  // Floats. Of matrices that stay codes the view has no data; those that are dequantized (FP4, 2:4, weights only) are
  // rotated.
  NetworkTensors weights;
  std::unique_ptr<linear::LinearScheme> scheme;  // that `weights` are for; borrows from the arena; forward only
};

// `dtype`: of the floats and of what is computed. InvalidArgument names the first thing that is missing, has the wrong
// shape, or is not known; DataLoss what is damaged: codes that do not add up to their sums, steps that are no step.
absl::StatusOr<PackedModel> LoadPackedModel(const std::string& directory, kernels::DType dtype,
                                            kernels::Stream& stream);

}  // namespace trainyard::model
