// AdamW (kernels/optim/adamw.h) on every parameter. Moments are f32, bf16 or, the first, E4M3 with an f32 scale for 128
// elements (llmq.md 2.1); what is not f32 is rounded stochastically, so that slow changes are not lost. Moments and
// masters may live on the host (update_pieces.h), which shows in no bit.
#pragma once

#include <memory>
#include <vector>

#include "worker/optim/optimizer.h"

namespace trainyard::optim {

std::unique_ptr<Optimizer> MakeAdamWOptimizer(const spec::AdamWOptions& options,
                                              std::vector<OptimizerParameter> parameters, kernels::Arena& arena,
                                              const spec::OffloadOptions& offload = {});

}  // namespace trainyard::optim
