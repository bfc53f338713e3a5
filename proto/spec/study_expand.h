// The trainings of a study: what each of its trials is.
#pragma once

#include <cstdint>
#include <vector>

#include "proto/spec/job_options.h"
#include "proto/v1/job.pb.h"

namespace trainyard::spec {

// At most so many trainings a study: the service runs them as one generation.
inline constexpr int64_t kMaxStudyTrainings = 10'000;

struct StudyTraining {
  v1::JobSpec spec;  // of kind pretrain
  // Places in StudyOptions.
  int size = 0;
  int ratio = 0;
  int recipe = 0;
  uint64_t seed = 0;
  int64_t parameters = 0;  // N
  int64_t steps = 0;
  int64_t tokens = 0;  // D: all tokens of all steps
};

// `options` are ParseJob's of `spec`, of kind study; sizes first, then ratios, recipes and seeds.
//
// A training has the job's sections world, model.dtype, data, training and communication and its policies, and of its
// own: model.shape, the steps that reach tokens_per_parameter * N tokens, the recipe's linear scheme and optimizer, the
// seed, and
//   - the learning rate, of whatever optimizer: that of the spec times N(first size) / N, hidden_size(first) /
//     hidden_size, or 1. Trion's adam_learning_rate goes with it;
//   - warm-up: training.schedule.warmup_steps is that of the training with the fewest steps; longer ones have the same
//     fraction of theirs, so that schedules are alike;
//   - one evaluation, at the end, over all of the validation split;
//   - the labels study, size, ratio, recipe and seed.
// So trainings that differ in the recipe only see the same tokens in the same order.
std::vector<StudyTraining> ExpandStudy(const v1::JobSpec& spec, const JobOptions& options);

// Adds what is wrong with a study's trainings, each size with each recipe at the fewest tokens, under study.recipes and
// study.sizes. For ParseJob.
void CheckStudyTrainings(const v1::JobSpec& spec, const JobOptions& options, FieldErrors& errors);

}  // namespace trainyard::spec
