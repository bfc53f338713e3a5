// SGD with momentum (kernels/optim/sgd.h) on every parameter. The velocity is f32; without momentum there is none. It
// and masters may live on the host (update_pieces.h), which shows in no bit.
#pragma once

#include <memory>
#include <vector>

#include "worker/optim/optimizer.h"

namespace trainyard::optim {

std::unique_ptr<Optimizer> MakeSgdOptimizer(const spec::SgdOptions& options, std::vector<OptimizerParameter> parameters,
                                            kernels::Arena& arena, const spec::OffloadOptions& offload = {});

}  // namespace trainyard::optim
