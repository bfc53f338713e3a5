// ECO (kernels/optim/eco.h, eco.md 2): parameters that are codes (OptimizerParameter::coded) have no master; what a
// step loses to rounding goes into their momentum. All others take the same rule without rounding: AdamW, or SGDM in
// ECO's form, m = b m + (1 - b) g; w = w - lr (m + weight_decay w).
//
// Metrics over the coded parameters: eco_changed_share (of codes that are not what they were), eco_injection_ratio
// (norm of what was injected over norm of the momentum it met), eco_clipped_share (0, or the scales are wrong).
#pragma once

#include <memory>
#include <vector>

#include "worker/optim/optimizer.h"

namespace trainyard::optim {

std::unique_ptr<Optimizer> MakeEcoOptimizer(const spec::EcoOptions& options, std::vector<OptimizerParameter> parameters,
                                            kernels::Arena& arena);

}  // namespace trainyard::optim
