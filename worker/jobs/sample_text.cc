#include "worker/jobs/sample_text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/data/dataset.h"

namespace trainyard::jobs {
namespace {

// Length of the longest head of `text` that does not end inside a UTF-8 character.
size_t WholeCharacters(absl::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<uint8_t>(text[text.size() - back]);
    if (byte < 0x80) break;
    if (byte < 0xC0) continue;  // inside a character
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    return back < length ? text.size() - back : text.size();
  }
  return text.size();
}

}  // namespace

absl::StatusOr<TextSampler> TextSampler::Create(const model::ModelConfig& config, const linear::LinearScheme* scheme,
                                                const model::NetworkTensors* weights,
                                                const std::string& tokenizer_directory, const SampleOptions& options,
                                                kernels::Stream* stream) {
  TY_RETURN_IF_ERROR(Validate(options.sampling));
  TY_ASSIGN_OR_RETURN(data::Tokenizer tokenizer, data::Tokenizer::Load(data::TokenizerPath(tokenizer_directory)));
  if (tokenizer.vocab_size() > config.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(tokenizer_directory, ": the tokenizer has ", tokenizer.vocab_size(),
                                                   " tokens, the model ", config.vocab_size));
  }
  const model::DecoderOptions decoding{
      .max_positions = std::min(config.max_positions, options.max_prompt_tokens + options.max_tokens),
      .dtype = options.dtype,
      .threads = stream->threads()};
  kernels::Arena counting = kernels::Arena::CountOnly(stream->device());
  model::Decoder(config, decoding, scheme, weights, counting);
  TY_ASSIGN_OR_RETURN(kernels::Arena arena, kernels::Arena::Reserve(counting));
  TextSampler sampler(config, options, std::move(tokenizer), std::move(arena), stream);
  sampler.decoder_ = std::make_unique<model::Decoder>(config, decoding, scheme, weights, *sampler.arena_);
  sampler.decoder_->Prepare(*stream);
  return sampler;
}

absl::StatusOr<std::string> TextSampler::Continue(const std::string& prompt,
                                                  const std::function<bool(absl::string_view)>& on_text) {
  std::vector<int32_t> ids = tokenizer_.Encode(prompt);
  if (ids.empty()) {
    if (tokenizer_.end_of_text_id() < 0) {
      return absl::InvalidArgumentError("an empty prompt needs a tokenizer with <|endoftext|>");
    }
    ids.push_back(tokenizer_.end_of_text_id());
  }
  std::string text;
  size_t told = 0;
  const auto on_token = [&](int32_t token) {
    ++tokens_generated_;
    absl::StrAppend(&text, tokenizer_.Decode({&token, 1}));
    const size_t whole = WholeCharacters(text);
    if (whole <= told) return true;
    const absl::string_view piece = absl::string_view(text).substr(told, whole - told);
    told = whole;
    return on_text(piece);
  };
  TY_RETURN_IF_ERROR(
      Generate(*decoder_, config_, ids, options_.max_tokens, options_.sampling, on_token, *stream_).status());
  if (told < text.size()) on_text(absl::string_view(text).substr(told));
  return text;
}

}  // namespace trainyard::jobs
