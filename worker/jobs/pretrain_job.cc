#include "worker/jobs/pretrain_job.h"

#include "worker/jobs/language_model_job.h"

namespace trainyard::jobs {

std::unique_ptr<Job> MakePretrainJob(const spec::JobOptions& options) {
  return std::make_unique<LanguageModelJob>(options, std::get<spec::PretrainOptions>(options.kind).samples);
}

}  // namespace trainyard::jobs
