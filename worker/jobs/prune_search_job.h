// prune_search: which heads and channels each block of a model keeps, by evolutionary search with a short fine-tuning
// of every candidate (DarwinLM, arXiv:2502.07780; docs/methods/darwinlm.md). A driver: its work is done by trials of
// kind prune_task, and by one of kind pretrain if the winner is trained on.
//
// Units: calibrate; layers (all modules' levels); one for each generation; the last measures the winner and the
// baselines, exports the winner and trains it on. Everything follows from the spec, the seed and the outcomes of the
// trials, so a driver that comes back asks for the same trials again and gets what was recorded.
//
// Metrics of a generation's unit: generation, best_fitness, parent_fitness, trials, failed_trials, parameters.
//
// Result: values parameters, kl, perplexity, tuned_kl, tuned_perplexity of the winner, the same with "uniform_",
// "spdy_", "magnitude_", "depth_" in front for the baselines that were asked for, dense_parameters, dense_perplexity,
// generations, trials, failed_trials; continued_loss and continued_evaluation_loss if it was trained on. Documents
// "genome" (levels of each block, removed heads and channels), "history" (a record a generation), "baselines" (their
// levels). Artifact "model".
#pragma once

#include <memory>

#include "proto/spec/job_options.h"
#include "worker/jobs/job.h"

namespace trainyard::jobs {

std::unique_ptr<Job> MakePruneSearchJob(const spec::JobOptions& options);

}  // namespace trainyard::jobs
