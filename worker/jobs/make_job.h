// The only switch over job kinds.
#pragma once

#include <memory>

#include "proto/spec/job_options.h"
#include "worker/jobs/job.h"

namespace trainyard::jobs {

std::unique_ptr<Job> MakeJob(const spec::JobOptions& options);

}  // namespace trainyard::jobs
