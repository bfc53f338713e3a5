#include "worker/train/plan.h"

#include <algorithm>

#include "worker/ckpt/tensor_division.h"
#include "worker/comm/bucket_layout.h"
#include "worker/comm/partition.h"
#include "worker/train/flops.h"

namespace trainyard::train {
namespace {

std::vector<comm::Bucket> Buckets(const Trainer& trainer, int64_t bucket_bytes) {
  std::vector<comm::GradientLayerSpec> layers;
  for (const comm::GradientLayer& layer : trainer.GradientLayers()) {
    comm::GradientLayerSpec& spec = layers.emplace_back();
    for (const comm::GradientTensor& tensor : layer.tensors) {
      spec.tensors.push_back({tensor.gradient.size(), tensor.dims});
    }
  }
  return LayOutBuckets(layers, sizeof(float), bucket_bytes);
}

int64_t LargestSnapshot(const Trainer& trainer, int ranks) {
  std::vector<int64_t> bytes;
  for (const optim::NamedTensor& tensor : trainer.state()) bytes.push_back(tensor.tensor.bytes());
  const std::vector<int> owners = ckpt::DivideTensors(bytes, ranks);
  std::vector<int64_t> of_rank(static_cast<size_t>(ranks));
  for (size_t i = 0; i < bytes.size(); ++i) of_rank[static_cast<size_t>(owners[i])] += bytes[i];
  return *std::max_element(of_rank.begin(), of_rank.end());
}

}  // namespace

TrainingPlan PlanTraining(const TrainerOptions& options, const spec::CommunicationOptions& communication,
                          int world_size) {
  const std::unique_ptr<Trainer> trainer = Trainer::CreateCounting(options);
  TrainingPlan plan;
  plan.memory = trainer->memory_plan();
  plan.memory["checkpoint"] = LargestSnapshot(*trainer, world_size);
  if (world_size > 1) {
    int64_t largest = 0;
    for (const comm::Bucket& bucket : Buckets(*trainer, communication.bucket_bytes)) {
      ++plan.exchange_buckets;
      // Rank 0 has the longest part: it sends the rest to its owners, and its own sum to all the others.
      const int64_t own = comm::PartOf(bucket.elements, world_size, 0).size();
      plan.wire_bytes_per_step += 4 * (bucket.elements - own + own * (world_size - 1));
      largest = std::max(largest, own);
    }
    plan.memory["communication"] = 4 * largest * (world_size - 1);  // one piece of the own part from each peer
  }
  for (const auto& [purpose, bytes] : plan.memory) plan.memory_bytes += bytes;

  plan.parameters = model::ParameterCount(options.config);
  plan.tokens_per_step =
      int64_t{options.training.micro_batch} * options.training.accumulation * options.sequence_length * world_size;
  plan.flops_per_token = FlopsPerToken(options.config, options.sequence_length);
  plan.flops_per_step = plan.flops_per_token * static_cast<double>(plan.tokens_per_step);
  return plan;
}

}  // namespace trainyard::train
