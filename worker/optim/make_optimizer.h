// The only switch over optimizers.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "proto/spec/training_options.h"
#include "worker/optim/optimizer.h"

namespace trainyard::optim {

// InvalidArgument if the optimizer does not fit these parameters. They may be without memory.
absl::Status CheckOptimizer(const spec::OptimizerOptions& options, const std::vector<OptimizerParameter>& parameters);

// Whether parameters may be shards: the optimizer updates each element on its own, whatever its neighbours are.
bool TakesShards(const spec::OptimizerOptions& options);

// Of parameters that CheckOptimizer accepts. State is booked under "moments", unless the optimizer's header says
// otherwise. `offload`: of moments, and, telling where those of `parameters` are, of masters; only for optimizers that
// TakesShards, and devices other than the CPU.
std::unique_ptr<Optimizer> MakeOptimizer(const spec::OptimizerOptions& options,
                                         std::vector<OptimizerParameter> parameters, kernels::Arena& arena,
                                         const spec::OffloadOptions& offload = {});

double PeakLearningRate(const spec::OptimizerOptions& options);

}  // namespace trainyard::optim
