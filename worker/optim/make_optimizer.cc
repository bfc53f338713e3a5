#include "worker/optim/make_optimizer.h"

#include <utility>

#include "base/check.h"
#include "base/overloaded.h"
#include "worker/optim/adamw_optimizer.h"
#include "worker/optim/dct_adamw_optimizer.h"
#include "worker/optim/eco_optimizer.h"
#include "worker/optim/elsa/elsa_optimizer.h"
#include "worker/optim/sgd_optimizer.h"
#include "worker/optim/subspace.h"
#include "worker/optim/trion_optimizer.h"

namespace trainyard::optim {

absl::Status CheckOptimizer(const spec::OptimizerOptions& options, const std::vector<OptimizerParameter>& parameters) {
  if (const auto* const elsa = std::get_if<spec::ElsaOptions>(&options)) return CheckElsa(*elsa, parameters);
  if (const auto* const dct = std::get_if<spec::DctAdamWOptions>(&options)) {
    return CheckLayerRanks(dct->subspace, "training.optimizer.dct_adamw.subspace", parameters);
  }
  if (const auto* const trion = std::get_if<spec::TrionOptions>(&options)) {
    return CheckLayerRanks(trion->subspace, "training.optimizer.trion.subspace", parameters);
  }
  return absl::OkStatus();
}

bool TakesShards(const spec::OptimizerOptions& options) {
  return std::holds_alternative<spec::AdamWOptions>(options) || std::holds_alternative<spec::SgdOptions>(options);
}

std::unique_ptr<Optimizer> MakeOptimizer(const spec::OptimizerOptions& options,
                                         std::vector<OptimizerParameter> parameters, kernels::Arena& arena,
                                         const spec::OffloadOptions& offload) {
  TY_CHECK(TakesShards(options) || !(offload.moments || offload.master));
  using Made = std::unique_ptr<Optimizer>;
  return std::visit(
      Overloaded{
          [&](const spec::AdamWOptions& o) -> Made {
            return MakeAdamWOptimizer(o, std::move(parameters), arena, offload);
          },
          [&](const spec::SgdOptions& o) -> Made { return MakeSgdOptimizer(o, std::move(parameters), arena, offload); },
          [&](const spec::EcoOptions& o) -> Made { return MakeEcoOptimizer(o, std::move(parameters), arena); },
          [&](const spec::DctAdamWOptions& o) -> Made {
            return MakeDctAdamWOptimizer(o, std::move(parameters), arena);
          },
          [&](const spec::TrionOptions& o) -> Made { return MakeTrionOptimizer(o, std::move(parameters), arena); },
          [&](const spec::ElsaOptions& o) -> Made { return MakeElsaOptimizer(o, std::move(parameters), arena); },
      },
      options);
}

double PeakLearningRate(const spec::OptimizerOptions& options) {
  return std::visit([](const auto& kind) { return kind.learning_rate; }, options);
}

}  // namespace trainyard::optim
