#include "worker/model/generate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/philox.h"

namespace trainyard::model {

absl::Status Validate(const SamplingOptions& options) {
  if (!(options.temperature >= 0 && options.temperature <= 100)) {
    return absl::InvalidArgumentError(absl::StrCat("temperature: ", options.temperature, " not in [0, 100]"));
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("top_p: ", options.top_p, " not in (0, 1]"));
  }
  return absl::OkStatus();
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocab_size)
    : options_(options),
      logits_(static_cast<size_t>(vocab_size)),
      probabilities_(logits_.size()),
      order_(logits_.size()) {}

int32_t Sampler::Pick(const kernels::TensorView& logits, int64_t position) {
  TY_CHECK_EQ(static_cast<size_t>(logits.size()), logits_.size());
  kernels::DispatchFloat(logits.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (size_t i = 0; i < logits_.size(); ++i) {
      const float value = kernels::ToFloat(logits.as<T>()[i]);
      logits_[i] = std::isnan(value) ? -std::numeric_limits<float>::infinity() : value;
    }
  });
  const auto likeliest = std::max_element(logits_.begin(), logits_.end());  // the first of equals
  if (options_.temperature == 0 || !std::isfinite(*likeliest)) return static_cast<int32_t>(likeliest - logits_.begin());

  std::iota(order_.begin(), order_.end(), 0);
  double sum = 0;
  for (size_t i = 0; i < logits_.size(); ++i) {
    probabilities_[i] = std::exp((static_cast<double>(logits_[i]) - *likeliest) / options_.temperature);
    sum += probabilities_[i];
  }
  size_t candidates = order_.size();
  if (options_.top_p < 1) {
    std::sort(order_.begin(), order_.end(), [this](int32_t a, int32_t b) {
      const float x = logits_[static_cast<size_t>(a)], y = logits_[static_cast<size_t>(b)];
      return x != y ? x > y : a < b;
    });
    double kept = 0;
    for (candidates = 0; candidates < order_.size() && kept < options_.top_p * sum; ++candidates) {
      kept += probabilities_[static_cast<size_t>(order_[candidates])];
    }
    sum = kept;
  }
  const kernels::PhiloxKey key{.seed = options_.seed, .purpose = kernels::kRandomSample};
  double left = kernels::ToUniform(kernels::RandomWord(key, static_cast<uint64_t>(position))) * sum;
  for (size_t i = 0; i < candidates; ++i) {
    left -= probabilities_[static_cast<size_t>(order_[i])];
    if (left < 0) return order_[i];
  }
  return order_[candidates - 1];  // rounding
}

absl::StatusOr<std::vector<int32_t>> Generate(Decoder& decoder, const ModelConfig& config,
                                              absl::Span<const int32_t> prompt, int64_t max_tokens,
                                              const SamplingOptions& sampling,
                                              const std::function<bool(int32_t)>& on_token, kernels::Stream& stream) {
  TY_RETURN_IF_ERROR(Validate(sampling));
  if (prompt.empty()) return absl::InvalidArgumentError("the prompt has no tokens");
  if (static_cast<int64_t>(prompt.size()) > decoder.max_positions()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the prompt has ", prompt.size(), " tokens; there is room for ", decoder.max_positions()));
  }
  for (const int32_t id : prompt) {
    if (id < 0 || id >= config.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("token ", id, " not in [0, ", config.vocab_size, ")"));
    }
  }
  decoder.Reset();
  Sampler sampler(sampling, config.vocab_size);
  std::vector<int32_t> generated;
  kernels::TensorView logits = decoder.Feed(prompt, stream);
  while (static_cast<int64_t>(generated.size()) < max_tokens) {
    const int32_t token = sampler.Pick(logits, decoder.length());
    if (std::find(config.eos_ids.begin(), config.eos_ids.end(), token) != config.eos_ids.end()) break;
    generated.push_back(token);
    if (!on_token(token) || decoder.length() == decoder.max_positions()) break;
    logits = decoder.Feed({&generated.back(), 1}, stream);
  }
  return generated;
}

}  // namespace trainyard::model
