// Pretraining: language_model_job.h as it is.
#pragma once

#include <memory>

#include "proto/spec/job_options.h"
#include "worker/jobs/job.h"

namespace trainyard::jobs {

std::unique_ptr<Job> MakePretrainJob(const spec::JobOptions& options);

}  // namespace trainyard::jobs
