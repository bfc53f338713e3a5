// Text in, text out: a tokenizer, a decoder and a sampler around trained weights.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "worker/data/tokenizer.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/decoder.h"
#include "worker/model/generate.h"

namespace trainyard::jobs {

struct SampleOptions {
  int64_t max_tokens = 64;
  int64_t max_prompt_tokens = 4096;
  kernels::DType dtype = kernels::DType::kF32;  // of the weights
  model::SamplingOptions sampling;
};

// One thread at a time. Borrows scheme, weights and stream.
class TextSampler {
 public:
  // `tokenizer_directory` holds tokenizer.json. InvalidArgument if the tokenizer has ids that the model has not.
  static absl::StatusOr<TextSampler> Create(const model::ModelConfig& config, const linear::LinearScheme* scheme,
                                            const model::NetworkTensors* weights,
                                            const std::string& tokenizer_directory, const SampleOptions& options,
                                            kernels::Stream* stream);

  // What follows the prompt. `on_text` gets the new text piece by piece, cut between whole UTF-8 characters; false ends
  // it. An empty prompt starts like a document, after the end of another.
  absl::StatusOr<std::string> Continue(const std::string& prompt,
                                       const std::function<bool(absl::string_view)>& on_text);

  int64_t tokens_generated() const { return tokens_generated_; }

 private:
  TextSampler(const model::ModelConfig& config, const SampleOptions& options, data::Tokenizer tokenizer,
              kernels::Arena arena, kernels::Stream* stream)
      : config_(config),
        options_(options),
        tokenizer_(std::move(tokenizer)),
        arena_(std::make_unique<kernels::Arena>(std::move(arena))),
        stream_(stream) {}

  const model::ModelConfig config_;
  const SampleOptions options_;
  data::Tokenizer tokenizer_;
  std::unique_ptr<kernels::Arena> arena_;
  std::unique_ptr<model::Decoder> decoder_;
  kernels::Stream* stream_;
  int64_t tokens_generated_ = 0;
};

}  // namespace trainyard::jobs
