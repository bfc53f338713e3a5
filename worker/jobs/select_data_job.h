// The job kind select_data: which samples of a pool to train on, for a small set of target samples (Influence
// Distillation, arXiv:2505.19051; docs/methods/influence-distillation.md), and the methods it is compared with.
//
// Units are the stages of spec::kSelectionStages: warm-up, embeddings, landmarks' gradients, targets' gradients, solve,
// scores, selection, weights. A stage that a method does not have is passed through. A stage that is broken off is run
// again from its beginning.
//
// The pool is cut over the ranks by the samples' places in the order of their ids; what a sample gives depends on
// itself alone, and everything that joins samples (the solve, the selection, the weights) is done in that order. The
// warm-up is a small training that every rank makes alike, since sums over ranks would depend on how many there are. So
// the same ids come out for any number of ranks and any order of the pool's files.
//
// Metrics of a unit: stage (its number), stage_seconds; samples and samples_per_second (of all ranks) where samples are
// gone through; warmup_loss; heldout_spearman, heldout_r2, sigma; selected; effective_size. Result: artifact
// "selection" (a sample set with weights, whose validation split is the target), values pool_samples, target_samples,
// unlabelled_samples, empty_gradients, selected, effective_size, lambda, landmarks, heldout_spearman, heldout_r2,
// seconds_<stage>; document "report".
#pragma once

#include <memory>

#include "proto/spec/job_options.h"
#include "worker/jobs/job.h"

namespace trainyard::jobs {

std::unique_ptr<Job> MakeSelectDataJob(const spec::JobOptions& options);

}  // namespace trainyard::jobs
