// Text continuation: picks token after token from a decoder's logits.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/decoder.h"

namespace trainyard::model {

struct SamplingOptions {
  double temperature = 0;  // 0: the likeliest token
  double top_p = 1;        // (0, 1]: only the likeliest tokens that together have this probability
  uint64_t seed = 0;
};

// InvalidArgument, naming the field and its range.
absl::Status Validate(const SamplingOptions& options);

// Picks tokens; keeps its scratch, so that picking allocates nothing after the first time.
class Sampler {
 public:
  Sampler(const SamplingOptions& options, int64_t vocab_size);

  // `logits`: f32 or bf16, vocab_size of them. The choice is a function of (logits, options, position): equal logits
  // are told apart by the lower id. A NaN is never chosen unless all are.
  int32_t Pick(const kernels::TensorView& logits, int64_t position);

 private:
  const SamplingOptions options_;
  std::vector<float> logits_;
  std::vector<double> probabilities_;
  std::vector<int32_t> order_;
};

// Feeds `prompt` to a reset decoder and appends up to `max_tokens` tokens, ending early at one of the model's
// end-of-text ids (which is not part of the result) or at the decoder's last position. `on_token` sees each token as it
// comes; false ends it. InvalidArgument for an empty or too long prompt or ids outside the vocabulary.
absl::StatusOr<std::vector<int32_t>> Generate(Decoder& decoder, const ModelConfig& config,
                                              absl::Span<const int32_t> prompt, int64_t max_tokens,
                                              const SamplingOptions& sampling,
                                              const std::function<bool(int32_t)>& on_token, kernels::Stream& stream);

}  // namespace trainyard::model
