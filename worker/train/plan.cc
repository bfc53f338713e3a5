#include "worker/train/plan.h"

#include "base/status_macros.h"
#include "worker/ckpt/tensor_division.h"
#include "worker/comm/exchange_plan.h"
#include "worker/train/flops.h"

namespace trainyard::train {
namespace {

// Parts are written by those who have them, rank 0 the longest.
int64_t LargestSnapshot(const Trainer& trainer, int ranks) {
  std::vector<int64_t> bytes;
  int64_t part_bytes = 0;
  for (const optim::NamedTensor& state : trainer.state()) {
    if (state.whole_size > 0) {
      part_bytes += state.tensor.bytes();
    } else {
      bytes.push_back(state.tensor.bytes());
    }
  }
  return part_bytes + ckpt::LargestShare(bytes, ranks);
}

}  // namespace

absl::StatusOr<TrainingPlan> PlanTraining(const TrainerOptions& any_rank,
                                          const spec::CommunicationOptions& communication, int world_size) {
  TrainerOptions options = any_rank;
  options.rank = 0;
  options.ranks = world_size;
  TY_RETURN_IF_ERROR(Trainer::Check(options));
  const std::unique_ptr<Trainer> trainer = Trainer::CreateCounting(options);
  TrainingPlan plan;
  plan.memory = trainer->memory_plan();
  plan.memory["checkpoint"] = LargestSnapshot(*trainer, world_size);
  if (world_size > 1) {
    comm::ExchangeOptions exchange_options;
    exchange_options.communication = communication;
    TY_RETURN_IF_ERROR(trainer->AddScatter(&exchange_options));
    TY_ASSIGN_OR_RETURN(const comm::ExchangePlan exchange,
                        comm::PlanExchange(exchange_options, trainer->GradientLayers(), /*rank=*/0, world_size));
    plan.exchange_buckets = exchange.buckets;
    const bool is_each_micro_batch = exchange_options.scatter && exchange_options.scatter->by_layer;
    const int64_t exchanges = is_each_micro_batch ? options.training.accumulation : 1;
    plan.gather_bytes_per_step = trainer->GatherBytesPerStep();
    plan.wire_bytes_per_step = exchanges * (exchange.sent.phase1 + exchange.sent.phase2) + plan.gather_bytes_per_step;
    plan.uncoded_bytes_per_step = exchanges * exchange.uncoded_bytes + plan.gather_bytes_per_step;
    plan.memory["communication"] += exchange.workspace_bytes;
    if (exchange.state_bytes > 0) {
      plan.memory["exchange_state"] = exchange.state_bytes;
      plan.memory["checkpoint"] += exchange.state_bytes;
    }
  }
  for (const auto& [purpose, bytes] : plan.memory) plan.memory_bytes += bytes;
  if (options.device != kernels::Device::kCpu) {
    plan.host_memory = trainer->pinned_plan();
    plan.host_memory["checkpoint"] = plan.memory["checkpoint"];
  }
  for (const auto& [purpose, bytes] : plan.host_memory) plan.host_memory_bytes += bytes;

  plan.parameters = model::ParameterCount(options.config);
  plan.tokens_per_step =
      int64_t{options.training.micro_batch} * options.training.accumulation * options.sequence_length * world_size;
  plan.flops_per_token = FlopsPerToken(options.config, options.sequence_length);
  plan.flops_per_step = plan.flops_per_token * static_cast<double>(plan.tokens_per_step);
  return plan;
}

}  // namespace trainyard::train
