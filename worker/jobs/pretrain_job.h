// Pretraining: steps over a token stream, from scratch or from a model folder.
//
// Metrics of a unit: loss, gradient_norm, learning_rate, tokens, tokens_per_second, mfu (model FLOPs a second of this
// rank over its measured f32 GEMM rate), loss_z_score, gradient_norm_z_score, alarm (0 or 1), update_dropped (0 or 1);
// evaluation_loss on the steps that evaluate; with several ranks comm_seconds and comm_exposed_seconds (of the
// exchange, and what of it the step waited for), comm_bytes (sent by this rank), compression_ratio. Sections: prepare,
// train, evaluate, export, sample.
//
// Result of rank 0: artifact "model" (a Hugging Face folder in the attempt's directory), values final_loss,
// evaluation_loss (if there is a validation split), steps, tokens, parameters; one sample a prompt, the prompt in
// front.
#pragma once

#include <memory>

#include "proto/spec/job_options.h"
#include "worker/jobs/job.h"

namespace trainyard::jobs {

std::unique_ptr<Job> MakePretrainJob(const spec::JobOptions& options);

}  // namespace trainyard::jobs
