#include "worker/train/gan_plan.h"

#include <vector>

#include "base/status_macros.h"
#include "worker/ckpt/tensor_division.h"
#include "worker/comm/exchange_plan.h"

namespace trainyard::train {

absl::StatusOr<GanPlan> PlanGan(const GanTrainerOptions& trainer_options,
                                const GanEvaluatorOptions& evaluator_options) {
  TY_ASSIGN_OR_RETURN(const std::unique_ptr<GanTrainer> trainer, GanTrainer::CreateCounting(trainer_options));
  TY_ASSIGN_OR_RETURN(
      const std::unique_ptr<GanEvaluator> evaluator,
      GanEvaluator::CreateCounting(evaluator_options, trainer->generator_weights(trainer_options.gan.scored)));
  const int ranks = trainer_options.world_size;
  GanPlan plan;
  plan.memory = trainer->memory_plan();
  for (const auto& [purpose, bytes] : evaluator->memory_plan()) plan.memory["evaluation"] += bytes;

  std::vector<int64_t> replicated;
  for (const optim::NamedTensor& tensor : trainer->state()) replicated.push_back(tensor.tensor.bytes());
  int64_t snapshot = ckpt::LargestShare(replicated, ranks);
  for (const optim::NamedTensor& tensor : trainer->local_state()) snapshot += tensor.tensor.bytes();
  plan.memory["checkpoint"] = snapshot;

  plan.generator_parameters = trainer->generator().parameter_count();
  plan.discriminator_parameters = trainer->discriminator().parameter_count();
  plan.exchanges_per_step = trainer->calls_per_update();
  plan.samples_per_step = int64_t{trainer_options.gan.global_batch} * plan.exchanges_per_step;
  if (ranks > 1) {
    TY_ASSIGN_OR_RETURN(
        const comm::ExchangePlan exchange,
        comm::PlanExchange(trainer->exchange_options(), trainer->GradientLayers(), trainer_options.rank, ranks));
    plan.exchange_buckets = exchange.buckets;
    plan.wire_bytes_per_step = (exchange.sent.phase1 + exchange.sent.phase2) * plan.exchanges_per_step;
    plan.uncoded_bytes_per_step = exchange.uncoded_bytes * plan.exchanges_per_step;
    plan.memory["communication"] = exchange.workspace_bytes;
    if (exchange.state_bytes > 0) plan.memory["exchange_state"] = exchange.state_bytes;
  }
  for (const auto& [purpose, bytes] : plan.memory) plan.memory_bytes += bytes;
  return plan;
}

}  // namespace trainyard::train
