// The job kind study (docs/methods/scaling-laws.md): asks for a grid of trainings as one generation of trials and fits
// the scaling law to their final validation losses.
//
// One unit: the generation. Trainings that failed, or have no finite loss, are left out of the fit and told of in the
// report. While trainings run, the law is fitted to those that are done, logged, and kept in partial-report.json of the
// attempt's folder.
//
// Result: values eff_<recipe> with _low and _high (95 % interval), eff_tokens_<recipe> besides for a recipe that
// compresses both passes, law_A, law_alpha, law_B, law_beta, law_E, law_gamma, runs, excluded_runs, fit_cost and
// held_out_error (mean |ln L - ln Lhat| of the largest size, predicted from the others); document "report"
// (scaling/report.h); artifact "losses" with runs.tsv (scaling/run_table.h) and report.json.
// FailedPrecondition if the trainings that succeeded do not determine the law.
//
// Metrics of the unit: children_done, children_failed, eff_<recipe>, eff_<recipe>_width (of the 95 % interval).
#pragma once

#include <memory>

#include "proto/spec/job_options.h"
#include "worker/jobs/job.h"

namespace trainyard::jobs {

// `options.kind` is StudyOptions.
std::unique_ptr<Job> MakeStudyJob(const spec::JobOptions& options);

}  // namespace trainyard::jobs
