#include "worker/jobs/make_job.h"

#include <variant>

#include "base/overloaded.h"
#include "worker/jobs/pretrain_job.h"
#include "worker/jobs/prune_search_job.h"
#include "worker/jobs/prune_task_job.h"
#include "worker/jobs/qat_job.h"
#include "worker/jobs/qoda_gan_job.h"
#include "worker/jobs/select_data_job.h"
#include "worker/jobs/study_job.h"

namespace trainyard::jobs {

std::unique_ptr<Job> MakeJob(const spec::JobOptions& options) {
  using Made = std::unique_ptr<Job>;
  return std::visit(Overloaded{
                        // a kind without a line here does not compile
                        [&](const spec::PretrainOptions&) -> Made { return MakePretrainJob(options); },
                        [&](const spec::QatOptions&) -> Made { return MakeQatJob(options); },
                        [&](const spec::QodaGanOptions&) -> Made { return MakeQodaGanJob(options); },
                        [&](const spec::PruneSearchOptions&) -> Made { return MakePruneSearchJob(options); },
                        [&](const spec::PruneTaskOptions&) -> Made { return MakePruneTaskJob(options); },
                        [&](const spec::SelectDataOptions&) -> Made { return MakeSelectDataJob(options); },
                        [&](const spec::StudyOptions&) -> Made { return MakeStudyJob(options); },
                    },
                    options.kind);
}

}  // namespace trainyard::jobs
