// prune_task: one task of a structured-pruning search (DarwinLM, arXiv:2502.07780; docs/methods/darwinlm.md). A pure
// function of its spec and of the files that the spec names, in one unit.
//
//   calibrate   artifact "hessians"; values sequences, tokens. Data-parallel over the ranks
//   layers      artifact "levels"; values error_0, error_1, ... by level, columns
//   candidate   values fitness, parameters, train_tokens, evaluation_tokens, and with perplexity_batches, over the
//               validation split: kl and perplexity of the stitched model, tuned_kl and tuned_perplexity after its
//               fine-tuning, dense_perplexity. With export_model the artifact "model" (stitched, before fine-tuning)
//               and the document "structure"
//
// Sections: prepare, calibrate, prune, tune, evaluate, export.
#pragma once

#include <memory>

#include "proto/spec/job_options.h"
#include "worker/jobs/job.h"

namespace trainyard::jobs {

std::unique_ptr<Job> MakePruneTaskJob(const spec::JobOptions& options);

}  // namespace trainyard::jobs
