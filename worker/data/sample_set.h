// A folder of samples, each a text of its own with the positions that count: what `trainyard data samples` makes, what
// select_data chooses from, and, with weights, what it leaves. docs/formats.md describes the files:
//
//   samples.json       counts, vocabulary, digests, sources, provenance
//   samples.jsonl      one line a sample, in the order of the tokens
//   tokens-00000.bin   a token shard (token_shard.h): the samples' tokens one behind the other
//   tokenizer.json     as in a data set folder
//
// A sample of n tokens has labels at label_begin .. n - 1: those are the tokens whose prediction counts. Position 0 is
// never predicted, so label_begin >= 1; label_begin == n means that there are none.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/data/dataset.h"
#include "worker/data/token_shard.h"

namespace trainyard::data {

struct SampleRecord {
  std::string id = {};      // unique in its set
  std::string source = {};  // may be empty
  int64_t offset = 0;       // of the first token
  int64_t length = 0;
  int64_t label_begin = 1;
  Split split = Split::kTrain;
  // Of a selection: what its loss is multiplied by, the score it was taken at, and the round.
  double weight = 1;
  double score = 0;
  int64_t round = 0;

  // Labels among the first `positions` + 1 tokens, so in a row of that many positions.
  int64_t LabelCount(int64_t positions) const {
    return std::max<int64_t>(0, std::min(length, positions + 1) - label_begin);
  }
};

// How a selection came to be; all empty in a set made from text.
struct SampleProvenance {
  std::string method = {};  // "influence", ...
  std::string job_uid = {};
  std::string pool_fingerprint = {}, target_fingerprint = {};
  int64_t pool_samples = 0;
};

// The content of samples.json.
struct SampleSetInfo {
  int32_t vocab_size = 0;
  int32_t end_of_text_id = -1;
  std::string tokenizer_digest;
  int64_t sample_count = 0;
  int64_t unlabelled_count = 0;            // samples without a label
  std::map<std::string, int64_t> sources;  // samples by source
  ShardRecord shard;
  std::string index_digest;  // of samples.jsonl
  SampleProvenance provenance;

  // Equal for two folders exactly if their samples, in order, and weights are.
  std::string Fingerprint() const;
};

// An open set. Safe from any thread.
class SampleSet {
 public:
  // NotFound if the folder is none, InvalidArgument or DataLoss, naming file, line and field, if its files are damaged
  // or do not fit together.
  static absl::StatusOr<SampleSet> Open(const std::string& directory);

  const std::string& directory() const { return directory_; }
  const SampleSetInfo& info() const { return info_; }
  int64_t size() const { return static_cast<int64_t>(records_.size()); }
  const SampleRecord& record(int64_t i) const { return records_[static_cast<size_t>(i)]; }

  // The first `most` tokens of sample i. DataLoss if one is not below vocab_size.
  absl::StatusOr<std::vector<int32_t>> Tokens(int64_t i, int64_t most) const;
  // Names the sample's tokens and labels, not its id.
  absl::StatusOr<std::string> ContentDigest(int64_t i) const;

 private:
  SampleSet(std::string directory, SampleSetInfo info, TokenShard shard)
      : directory_(std::move(directory)), info_(std::move(info)), shard_(std::move(shard)) {}
  absl::Status ReadIndex();

  std::string directory_;
  SampleSetInfo info_;
  TokenShard shard_;
  std::vector<SampleRecord> records_;
};

// Writes a set sample by sample. Files are replaced when Finish has succeeded; samples.json is written last.
class SampleSetWriter {
 public:
  // `tokenizer_json` is copied as it is.
  static absl::StatusOr<SampleSetWriter> Create(const std::string& directory, int32_t vocab_size,
                                                int32_t end_of_text_id, const std::string& tokenizer_json);

  // offset and length of `record` are set here. InvalidArgument for an id that was there, tokens out of range, or
  // label_begin outside [1, length] (a set's empty sample has length 0 and label_begin 1).
  absl::Status Add(SampleRecord record, absl::Span<const int32_t> tokens);

  absl::StatusOr<SampleSetInfo> Finish(const SampleProvenance& provenance);

  int64_t size() const { return static_cast<int64_t>(records_.size()); }

 private:
  SampleSetWriter(std::string directory, TokenShardWriter shard, std::string tokenizer_json)
      : directory_(std::move(directory)), shard_(std::move(shard)), tokenizer_json_(std::move(tokenizer_json)) {}

  std::string directory_;
  TokenShardWriter shard_;
  std::string tokenizer_json_;
  SampleSetInfo info_;
  std::vector<SampleRecord> records_;
  std::map<std::string, int64_t> line_of_id_;
};

}  // namespace trainyard::data
