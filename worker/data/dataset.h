// A dataset folder: dataset.json (what is in it), tokenizer.json, train-00000.bin ..., validation-00000.bin ...
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/token_shard.h"

namespace trainyard::data {

enum class Split { kTrain, kValidation };
const char* Name(Split split);  // "train", "validation"

struct ShardRecord {
  std::string file;  // name inside the folder
  TokenShardInfo info;
};

// The content of dataset.json.
struct DatasetInfo {
  int32_t vocab_size = 0;
  int32_t end_of_text_id = -1;  // -1: none
  std::string tokenizer;        // "bytes", "bpe" or "file": how it came to be
  std::string tokenizer_digest;
  uint64_t seed = 0;
  int64_t source_bytes = 0;
  std::vector<ShardRecord> train, validation;

  const std::vector<ShardRecord>& shards(Split split) const { return split == Split::kTrain ? train : validation; }
  int64_t TokenCount(Split split) const;
  int64_t DocumentCount(Split split) const;
  // Names the tokens and their order: equal for two folders exactly if their shards' digests are equal.
  std::string Fingerprint() const;
};

std::string ToJson(const DatasetInfo& info);
absl::StatusOr<DatasetInfo> ParseDatasetInfo(const std::string& json, const std::string& path);

// Reads dataset.json; NotFound if the folder is none, InvalidArgument or DataLoss with the field's name otherwise.
absl::StatusOr<DatasetInfo> ReadDatasetInfo(const std::string& directory);

// Opens the shards of a split and checks each against its record (DataLoss if they differ).
absl::StatusOr<std::vector<TokenShard>> OpenShards(const std::string& directory, const DatasetInfo& info, Split split);

std::string TokenizerPath(const std::string& directory);

}  // namespace trainyard::data
