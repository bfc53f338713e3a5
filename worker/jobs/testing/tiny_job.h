// The smallest language-model job that has all parts, for tests.
#pragma once

#include <string>

#include "proto/spec/job_options.h"

namespace trainyard::jobs {

// On one token a byte; a few steps of it take a moment. Callers change what they test.
inline spec::JobOptions TinyLanguageModelJob(const std::string& data) {
  spec::JobOptions options;
  spec::ShapeModel model;
  model.shape = {.vocab_size = 257,
                 .hidden_size = 32,
                 .intermediate_size = 64,
                 .num_hidden_layers = 2,
                 .num_attention_heads = 4,
                 .num_key_value_heads = 2,
                 .head_dim = 8};
  options.model.source = model;
  options.data.path = data;
  options.data.sequence_length = 32;
  options.seed = 4;
  options.training.steps = 6;
  options.training.micro_batch = 4;
  options.training.evaluation = {.interval_steps = 0, .batches = 2};
  options.kind = spec::PretrainOptions{{.prompts = {"The yard"}, .tokens = 12}};
  return options;
}

}  // namespace trainyard::jobs
