// What a training run will take, known before it starts: memory by purpose, operations, bytes on the wire.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/core/arena.h"
#include "proto/spec/training_options.h"
#include "worker/train/trainer.h"

namespace trainyard::train {

struct TrainingPlan {
  // Of rank 0, which needs most. Beside what Trainer::Plan says: "communication" (pieces of buckets on their way),
  // "exchange_state" (error feedback and the like, if there is any) and "checkpoint" (the copy that is written beside
  // the training; of all ranks the most, or, sharded, a little more than that).
  kernels::MemoryPlan memory;
  int64_t memory_bytes = 0;  // the sum
  // Of a run on a device: what of `memory` is the host's, pinned but for "checkpoint"; the rest is the device's. Empty
  // for a run on the CPU.
  kernels::MemoryPlan host_memory;
  int64_t host_memory_bytes = 0;
  int64_t parameters = 0;
  int64_t tokens_per_step = 0;  // of all ranks
  double flops_per_token = 0;   // see flops.h
  double flops_per_step = 0;    // of all ranks
  // That rank 0, which has the longest parts, sends, and about as many it receives; without the transport's headers.
  // Exact for codes of fixed length; of PowerSGD from its start on; the most it can be with entropy coding.
  int64_t wire_bytes_per_step = 0;
  int64_t uncoded_bytes_per_step = 0;  // what identity would send
  int64_t gather_bytes_per_step = 0;   // of both: the weights, and sums for the norm, that sharding sends
  int64_t exchange_buckets = 0;
};

// The rank of `options` does not matter. Errors of Trainer::Check, and InvalidArgument if the layer types of
// `communication` do not fit the model, or its codecs the sharding.
absl::StatusOr<TrainingPlan> PlanTraining(const TrainerOptions& options,
                                          const spec::CommunicationOptions& communication, int world_size);

}  // namespace trainyard::train
