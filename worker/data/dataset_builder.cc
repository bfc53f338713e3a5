#include "worker/data/dataset_builder.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/data/bpe_trainer.h"
#include "worker/data/permutation.h"
#include "worker/data/token_shard.h"
#include "worker/data/tokenizer.h"

namespace trainyard::data {
namespace {

constexpr int64_t kProgressBytes = int64_t{1} << 20;

// A document, or a part of one where `tail_begin` cuts it: which bytes are for training and which for validation.
struct Part {
  int64_t document;
  double train_share;  // 1: all for training, 0: all for validation, else: its beginning
};

// Documents in their shuffled order, with their split. Only sizes and seed decide.
std::vector<Part> PlanSplit(const Corpus& corpus, double validation_fraction, uint64_t seed) {
  const int64_t count = corpus.size();
  const Permutation order(count, seed, 0);
  std::vector<Part> parts;
  for (int64_t i = 0; i < count; ++i) parts.push_back({order(i), 1.0});
  double budget = validation_fraction * static_cast<double>(corpus.total_bytes());
  if (budget < 1) return parts;
  bool has_validation = false;
  for (Part& part : parts) {
    const double bytes = static_cast<double>(corpus.bytes(part.document));
    if (bytes > budget) continue;
    part.train_share = 0;
    budget -= bytes;
    has_validation = true;
  }
  if (!has_validation) {
    for (Part& part : parts) part.train_share = 1.0 - validation_fraction;
  }
  return parts;
}

// Splits a document of a mixed part after the line in which its share for training ends.
std::pair<absl::string_view, absl::string_view> Cut(absl::string_view text, double train_share) {
  if (train_share >= 1) return {text, {}};
  if (train_share <= 0) return {{}, text};
  const size_t wanted = static_cast<size_t>(train_share * static_cast<double>(text.size()));
  const size_t line_end = text.find('\n', wanted);
  const size_t cut = line_end == absl::string_view::npos ? wanted : line_end + 1;
  return {text.substr(0, cut), text.substr(cut)};
}

// The shards of one split, one after another.
class SplitWriter {
 public:
  SplitWriter(const DatasetOptions& options, Split split, int32_t vocab_size)
      : options_(options), split_(split), vocab_size_(vocab_size) {}

  absl::Status Append(absl::Span<const int32_t> tokens) {
    if (!writer_.has_value()) {
      file_ = absl::StrFormat("%s-%05d.bin", Name(split_), records_.size());
      TY_ASSIGN_OR_RETURN(TokenShardWriter writer,
                          TokenShardWriter::Create(JoinPath(options_.output, file_), vocab_size_));
      writer_.emplace(std::move(writer));
    }
    TY_RETURN_IF_ERROR(writer_->Append(tokens));
    writer_->CountDocument();
    return writer_->token_count() >= options_.shard_tokens ? Close() : absl::OkStatus();
  }

  absl::StatusOr<std::vector<ShardRecord>> Finish() {
    TY_RETURN_IF_ERROR(Close());
    return std::move(records_);
  }

 private:
  absl::Status Close() {
    if (!writer_.has_value()) return absl::OkStatus();
    TY_ASSIGN_OR_RETURN(TokenShardInfo info, writer_->Finish());
    records_.push_back({file_, std::move(info)});
    writer_.reset();
    return absl::OkStatus();
  }

  const DatasetOptions& options_;
  const Split split_;
  const int32_t vocab_size_;
  std::string file_;
  std::optional<TokenShardWriter> writer_;
  std::vector<ShardRecord> records_;
};

absl::Status CheckOptions(const DatasetOptions& options) {
  if (options.output.empty()) return absl::InvalidArgumentError("output: is empty");
  if (!(options.validation_fraction >= 0 && options.validation_fraction <= 0.5)) {
    return absl::InvalidArgumentError(
        absl::StrCat("validation_fraction: ", options.validation_fraction, " is not in [0, 0.5]"));
  }
  if (options.shard_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat("shard_tokens: ", options.shard_tokens, " is below 1"));
  }
  return absl::OkStatus();
}

// Makes the folder, and takes the old dataset out of it, dataset.json first, so that no moment shows half of each.
absl::Status PrepareOutput(const DatasetOptions& options) {
  TY_RETURN_IF_ERROR(MakeDirs(options.output));
  const std::string json = JoinPath(options.output, "dataset.json");
  if (FileExists(json) && !options.overwrite) {
    return absl::FailedPreconditionError(absl::StrCat(options.output, ": already holds a dataset (use --overwrite)"));
  }
  TY_RETURN_IF_ERROR(RemoveTree(json));
  TY_RETURN_IF_ERROR(SyncDir(options.output));
  TY_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(options.output));
  for (const std::string& name : names) {
    const bool is_shard = (absl::StartsWith(name, "train-") || absl::StartsWith(name, "validation-")) &&
                          (absl::EndsWith(name, ".bin") || absl::EndsWith(name, ".bin.tmp"));
    if (is_shard) TY_RETURN_IF_ERROR(RemoveTree(JoinPath(options.output, name)));
  }
  return absl::OkStatus();
}

class Builder {
 public:
  Builder(const DatasetOptions& options, const Corpus& corpus)
      : options_(options),
        corpus_(corpus),
        parts_(PlanSplit(corpus, options.validation_fraction, options.seed)),
        total_(corpus.total_bytes()) {}

  absl::StatusOr<Tokenizer> MakeTokenizer() {
    if (options_.tokenizer == "bytes") return Tokenizer::Bytes();
    if (options_.tokenizer != "bpe") return Tokenizer::Load(options_.tokenizer);
    BpeOptions bpe{.vocab_size = options_.vocab_size, .pre_tokenizer = {.pattern = options_.pattern}};
    BpeTrainer trainer(bpe);
    ForEachPart("read", [&](absl::string_view train, absl::string_view) {
      trainer.Add(train);
      return absl::OkStatus();
    }).IgnoreError();  // the function above cannot fail
    Report("train tokenizer", 0);
    return trainer.Train();
  }

  absl::Status WriteShards(const Tokenizer& tokenizer, DatasetInfo* info) {
    Encoder encoder(tokenizer);
    SplitWriter train(options_, Split::kTrain, tokenizer.vocab_size());
    SplitWriter validation(options_, Split::kValidation, tokenizer.vocab_size());
    std::vector<int32_t> tokens;
    const auto write = [&](absl::string_view text, SplitWriter& writer) -> absl::Status {
      if (text.empty()) return absl::OkStatus();
      tokens.clear();
      encoder.Encode(text, /*parse_added=*/false, &tokens);
      if (tokenizer.end_of_text_id() >= 0) tokens.push_back(tokenizer.end_of_text_id());
      return writer.Append(tokens);
    };
    TY_RETURN_IF_ERROR(ForEachPart("encode", [&](absl::string_view for_train, absl::string_view for_validation) {
      TY_RETURN_IF_ERROR(write(for_train, train));
      return write(for_validation, validation);
    }));
    TY_ASSIGN_OR_RETURN(info->train, train.Finish());
    TY_ASSIGN_OR_RETURN(info->validation, validation.Finish());
    return absl::OkStatus();
  }

 private:
  template <typename Function>
  absl::Status ForEachPart(const char* phase, Function function) {
    int64_t done = 0, reported = 0;
    std::string scratch;
    Report(phase, 0);
    for (const Part& part : parts_) {
      const auto [train, validation] = Cut(corpus_.Document(part.document, &scratch), part.train_share);
      TY_RETURN_IF_ERROR(function(train, validation));
      done += corpus_.bytes(part.document);
      if (done - reported >= kProgressBytes) Report(phase, reported = done);
    }
    Report(phase, total_);
    return absl::OkStatus();
  }

  void Report(const char* phase, int64_t done) const {
    if (options_.progress) options_.progress(phase, done, total_);
  }

  const DatasetOptions& options_;
  const Corpus& corpus_;
  const std::vector<Part> parts_;
  const int64_t total_;
};

}  // namespace

absl::StatusOr<DatasetInfo> BuildDataset(const DatasetOptions& options) {
  TY_RETURN_IF_ERROR(CheckOptions(options));
  TY_ASSIGN_OR_RETURN(const Corpus corpus, Corpus::Open(options.corpus));
  Builder builder(options, corpus);
  // The tokenizer comes before the output is touched: what can be wrong with the request is known by then.
  TY_ASSIGN_OR_RETURN(const Tokenizer tokenizer, builder.MakeTokenizer());
  TY_RETURN_IF_ERROR(PrepareOutput(options));
  DatasetInfo info;
  info.vocab_size = tokenizer.vocab_size();
  info.end_of_text_id = tokenizer.end_of_text_id();
  info.tokenizer = options.tokenizer == "bytes" || options.tokenizer == "bpe" ? options.tokenizer : "file";
  info.seed = options.seed;
  info.source_bytes = corpus.total_bytes();
  const std::string json = tokenizer.ToJson();
  info.tokenizer_digest = DigestOf(json);
  TY_RETURN_IF_ERROR(WriteFileAtomic(TokenizerPath(options.output), json));
  TY_RETURN_IF_ERROR(builder.WriteShards(tokenizer, &info));
  TY_RETURN_IF_ERROR(SyncDir(options.output));
  TY_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(options.output, "dataset.json"), ToJson(info)));
  return info;
}

}  // namespace trainyard::data
