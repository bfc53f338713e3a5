// From a job's typed options to what training is built from: shared by the job itself and by the tools that plan.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proto/spec/job_options.h"
#include "worker/data/batch_source.h"
#include "worker/data/loader.h"
#include "worker/model/config.h"
#include "worker/train/trainer.h"

namespace trainyard::jobs {

// A shape's attention_bias is Qwen2's, on q, k and v.
model::ModelConfig ConfigOf(const spec::LlamaShape& shape);

struct PretrainSetup {
  train::TrainerOptions trainer;
  data::LoaderOptions loader;
  bool reads_samples = false;     // loader.directory is a sample set and not a data set
  std::string weights_directory;  // Hugging Face folder that the run starts from; empty: initial weights from the seed
};

// Relative paths start at `data_root`. Reads config.json if the model is a folder, and nothing else. NotFound or
// InvalidArgument name the folder. `options.seed` must be set.
// Opens what the rows come from.
absl::StatusOr<std::unique_ptr<data::BatchSource>> OpenRows(const PretrainSetup& setup);

absl::StatusOr<PretrainSetup> SetUpPretrain(const spec::JobOptions& options, const std::string& data_root, int rank,
                                            int world_size);

}  // namespace trainyard::jobs
