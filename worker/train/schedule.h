// Learning rate of each step, as a multiple of the peak.
//
// Steps are numbered 0 .. steps - 1. Warm-up: (step + 1) / warmup_steps, so the first step is not wasted on rate 0 and
// the last warm-up step has the peak. From there, with p going from 0 at the last peak step to 1 at the last step of
// the run and floor = final_fraction:
//
//   constant  1
//   cosine    floor + (1 - floor) (1 + cos(pi p)) / 2
//   linear    floor + (1 - floor) (1 - p)
//   wsd       1 until the last ceil(decay_fraction * steps) steps, then linear over those, the first already below 1
//
// So the last step has exactly the floor (methods/llmq.md, pitfall 5, is a cosine that ends before it).
#pragma once

#include <cstdint>

#include "proto/spec/training_options.h"

namespace trainyard::train {

double RateMultiplier(const spec::ScheduleOptions& options, int64_t step, int64_t steps);

}  // namespace trainyard::train
