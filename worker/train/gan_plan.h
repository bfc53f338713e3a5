// What a GAN's training will take, known before it starts: memory by purpose, bytes on the wire.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/core/arena.h"
#include "worker/train/gan_evaluator.h"
#include "worker/train/gan_trainer.h"

namespace trainyard::train {

struct GanPlan {
  // Of this rank. Beside what the trainer plans: "evaluation" (samples and the generator that makes them; without the
  // classifier of the Frechet distance), "communication" (pieces of buckets on their way), "exchange_state", and
  // "checkpoint" (the copy that is written beside the training; the largest of all ranks).
  kernels::MemoryPlan memory;
  int64_t memory_bytes = 0;  // the sum
  int64_t generator_parameters = 0;
  int64_t discriminator_parameters = 0;
  int64_t exchanges_per_step = 0;      // oracle calls of an update
  int64_t samples_per_step = 0;        // real ones, of all ranks
  int64_t wire_bytes_per_step = 0;     // that this rank sends; without the transport's headers
  int64_t uncoded_bytes_per_step = 0;  // what f32 would send
  int64_t exchange_buckets = 0;
};

absl::StatusOr<GanPlan> PlanGan(const GanTrainerOptions& trainer, const GanEvaluatorOptions& evaluator);

}  // namespace trainyard::train
