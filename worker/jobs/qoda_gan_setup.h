// From a qoda_gan job's typed options to what training is built from: shared by the job itself and by the tools that
// plan.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/spec/job_options.h"
#include "worker/data/images/sample_source.h"
#include "worker/train/gan_evaluator.h"
#include "worker/train/gan_trainer.h"

namespace trainyard::jobs {

// Shape of one sample, without opening a file: IDX files are grey, CIFAR is in colour.
std::vector<int64_t> SampleShapeOf(const spec::GanDataOptions& data);

// Opens the data; relative paths start at `data_root`. Errors name the file.
absl::StatusOr<std::unique_ptr<data::SampleSource>> OpenSamples(const spec::GanDataOptions& data,
                                                                const std::string& data_root);

struct QodaGanSetup {
  train::GanTrainerOptions trainer;
  train::GanEvaluatorOptions evaluator;
};

// `options.kind` must be qoda_gan.
QodaGanSetup SetUpQodaGan(const spec::JobOptions& options, int rank, int world_size);

}  // namespace trainyard::jobs
