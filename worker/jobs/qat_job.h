// Quantization-aware training: language_model_job.h under a quantized linear scheme (quest, if the job names none).
//
// Beside what that exports: with linear quest and quantized weights, artifact "packed", the model's codes
// (docs/formats.md, worker/model/packed_model.h). Its evaluation equals the training network's up to rounding.
#pragma once

#include <memory>

#include "proto/spec/job_options.h"
#include "worker/jobs/job.h"

namespace trainyard::jobs {

std::unique_ptr<Job> MakeQatJob(const spec::JobOptions& options);

}  // namespace trainyard::jobs
