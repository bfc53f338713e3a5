#include "worker/data/dataset.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "trainyard-dataset";
constexpr int64_t kVersion = 1;

// Reads typed fields of one JSON object; the first problem is kept, with the field's path.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) Fail("", "is not an object");
  }

  int64_t Integer(const char* name, int64_t low, int64_t high) {
    const Json* const field = Get(name);
    if (field == nullptr) return low;
    const bool fits = field->is_number_unsigned() ? field->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)
                                                  : field->is_number_integer();
    const int64_t value = fits ? field->get<int64_t>() : 0;
    if (!fits || value < low || value > high) {
      Fail(name, absl::StrCat(field->dump(-1, ' ', false, Json::error_handler_t::replace), " is not an integer in [",
                              low, ", ", high, "]"));
    }
    return value;
  }

  std::string Text(const char* name) {
    const Json* const field = Get(name);
    if (field == nullptr) return "";
    if (field->is_string()) return field->get<std::string>();
    Fail(name, "is not a string");
    return "";
  }

  // The field, or an empty one of another type, which the next reader then complains about.
  const Json& Child(const char* name) {
    static const Json kNull;
    const Json* const field = Get(name);
    return field == nullptr ? kNull : *field;
  }

  std::string Path(absl::string_view name) const { return absl::StrCat(where_, name.empty() ? "" : ".", name); }
  const absl::Status& status() const { return status_; }
  void Fail(absl::string_view name, absl::string_view what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(Path(name), ": ", what));
  }

 private:
  const Json* Get(const char* name) {
    if (!status_.ok()) return nullptr;
    const auto found = object_.find(name);
    if (found != object_.end()) return &*found;
    Fail(name, "is missing");
    return nullptr;
  }

  const Json& object_;
  const std::string where_;
  absl::Status status_;
};

Json ToJson(const std::vector<ShardRecord>& shards) {
  Json list = Json::array();
  for (const ShardRecord& shard : shards) {
    list.push_back({{"file", shard.file},
                    {"tokens", shard.info.token_count},
                    {"documents", shard.info.document_count},
                    {"largest_token", shard.info.max_token},
                    {"bytes_per_token", shard.info.bytes_per_token},
                    {"digest", shard.info.digest}});
  }
  return list;
}

absl::StatusOr<std::vector<ShardRecord>> ParseShards(const Json& list, const std::string& where, int32_t vocab_size) {
  if (!list.is_array()) return absl::InvalidArgumentError(absl::StrCat(where, ": is not a list"));
  std::vector<ShardRecord> shards;
  for (const Json& item : list) {
    Fields fields(item, absl::StrCat(where, "[", shards.size(), "]"));
    ShardRecord shard;
    shard.file = fields.Text("file");
    shard.info.token_count = fields.Integer("tokens", 0, std::numeric_limits<int64_t>::max());
    shard.info.document_count = fields.Integer("documents", 0, std::numeric_limits<int64_t>::max());
    shard.info.max_token = static_cast<int32_t>(fields.Integer("largest_token", 0, vocab_size - 1));
    shard.info.bytes_per_token = static_cast<int>(fields.Integer("bytes_per_token", 2, 4));
    shard.info.digest = fields.Text("digest");
    shard.info.vocab_size = vocab_size;
    // A dataset folder may come from anywhere; it must not lead out of itself.
    if (shard.file.empty() || shard.file.find('/') != std::string::npos) {
      fields.Fail("file", absl::StrCat("\"", shard.file, "\" is not a file name"));
    }
    TY_RETURN_IF_ERROR(fields.status());
    shards.push_back(std::move(shard));
  }
  return shards;
}

}  // namespace

const char* Name(Split split) {
  return split == Split::kTrain ? "train" : "validation";
}

int64_t DatasetInfo::TokenCount(Split split) const {
  int64_t sum = 0;
  for (const ShardRecord& shard : shards(split)) sum += shard.info.token_count;
  return sum;
}

int64_t DatasetInfo::DocumentCount(Split split) const {
  int64_t sum = 0;
  for (const ShardRecord& shard : shards(split)) sum += shard.info.document_count;
  return sum;
}

std::string DatasetInfo::Fingerprint() const {
  std::string text = absl::StrCat("vocab ", vocab_size);
  for (const Split split : {Split::kTrain, Split::kValidation}) {
    absl::StrAppend(&text, "\n", Name(split));
    for (const ShardRecord& shard : shards(split)) absl::StrAppend(&text, " ", shard.info.digest);
  }
  return DigestOf(text);
}

std::string ToJson(const DatasetInfo& info) {
  const Json json = {
      {"format", kFormat},
      {"version", kVersion},
      {"vocab_size", info.vocab_size},
      {"end_of_text_id", info.end_of_text_id},
      {"tokenizer", {{"kind", info.tokenizer}, {"digest", info.tokenizer_digest}}},
      {"seed", info.seed},
      {"source_bytes", info.source_bytes},
      {"train", ToJson(info.train)},
      {"validation", ToJson(info.validation)},
  };
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<DatasetInfo> ParseDatasetInfo(const std::string& text, const std::string& path) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::DataLossError(absl::StrCat(path, ": is not JSON (cut?)"));
  Fields fields(json, path);
  if (const std::string format = fields.Text("format"); fields.status().ok() && format != kFormat) {
    fields.Fail("format", absl::StrCat("\"", format, "\" where \"", kFormat, "\" was expected"));
  }
  fields.Integer("version", kVersion, kVersion);
  DatasetInfo info;
  info.vocab_size = static_cast<int32_t>(fields.Integer("vocab_size", 1, std::numeric_limits<int32_t>::max()));
  info.end_of_text_id = static_cast<int32_t>(fields.Integer("end_of_text_id", -1, info.vocab_size - 1));
  info.source_bytes = fields.Integer("source_bytes", 0, std::numeric_limits<int64_t>::max());
  const Json& seed = fields.Child("seed");
  if (!seed.is_number_unsigned()) fields.Fail("seed", "is not an unsigned integer");
  TY_RETURN_IF_ERROR(fields.status());
  info.seed = seed.get<uint64_t>();
  Fields tokenizer(fields.Child("tokenizer"), fields.Path("tokenizer"));
  info.tokenizer = tokenizer.Text("kind");
  info.tokenizer_digest = tokenizer.Text("digest");
  TY_RETURN_IF_ERROR(tokenizer.status());
  TY_ASSIGN_OR_RETURN(info.train, ParseShards(fields.Child("train"), fields.Path("train"), info.vocab_size));
  TY_ASSIGN_OR_RETURN(info.validation,
                      ParseShards(fields.Child("validation"), fields.Path("validation"), info.vocab_size));
  TY_RETURN_IF_ERROR(fields.status());
  return info;
}

absl::StatusOr<DatasetInfo> ReadDatasetInfo(const std::string& directory) {
  const std::string path = JoinPath(directory, "dataset.json");
  absl::StatusOr<std::string> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(absl::StrCat(directory,
                                            ": is no dataset folder (it has no dataset.json); make one with "
                                            "`trainyard data tokenize`"));
  }
  TY_RETURN_IF_ERROR(text.status());
  return ParseDatasetInfo(*text, path);
}

absl::StatusOr<std::vector<TokenShard>> OpenShards(const std::string& directory, const DatasetInfo& info, Split split) {
  std::vector<TokenShard> shards;
  for (const ShardRecord& record : info.shards(split)) {
    const std::string path = JoinPath(directory, record.file);
    TY_ASSIGN_OR_RETURN(TokenShard shard, TokenShard::Open(path));
    const TokenShardInfo& have = shard.info();
    if (have.digest != record.info.digest || have.token_count != record.info.token_count ||
        have.vocab_size != info.vocab_size || have.bytes_per_token != record.info.bytes_per_token) {
      return absl::DataLossError(absl::StrCat(path, ": holds ", have.token_count, " tokens, digest ", have.digest,
                                              "; dataset.json says ", record.info.token_count, " tokens, digest ",
                                              record.info.digest));
    }
    shards.push_back(std::move(shard));
  }
  return shards;
}

std::string TokenizerPath(const std::string& directory) {
  return JoinPath(directory, "tokenizer.json");
}

}  // namespace trainyard::data
