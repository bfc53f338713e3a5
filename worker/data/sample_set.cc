#include "worker/data/sample_set.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "trainyard-samples";
constexpr int64_t kVersion = 1;
constexpr char kShardFile[] = "tokens-00000.bin";
constexpr char kIndexFile[] = "samples.jsonl";
constexpr char kInfoFile[] = "samples.json";
constexpr int64_t kLargest = std::numeric_limits<int64_t>::max() / 2;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::Status Wrong(const std::string& where, const char* field, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ".", field, ": ", what));
}

absl::Status ReadInteger(const Json& json, const std::string& where, const char* field, int64_t low, int64_t high,
                         int64_t* out) {
  const auto found = json.find(field);
  if (found == json.end()) return Wrong(where, field, "is missing");
  if (!found->is_number_integer() || found->get<double>() < static_cast<double>(low) ||
      found->get<double>() > static_cast<double>(high)) {
    return Wrong(where, field, absl::StrCat(Dump(*found), " is not an integer in [", low, ", ", high, "]"));
  }
  *out = found->get<int64_t>();
  return absl::OkStatus();
}

absl::Status ReadText(const Json& json, const std::string& where, const char* field, std::string* out) {
  const auto found = json.find(field);
  if (found == json.end()) return absl::OkStatus();
  if (!found->is_string()) return Wrong(where, field, "is not a string");
  *out = found->get<std::string>();
  return absl::OkStatus();
}

absl::Status ReadNumber(const Json& json, const std::string& where, const char* field, double low, double* out) {
  const auto found = json.find(field);
  if (found == json.end()) return absl::OkStatus();
  if (!found->is_number() || !std::isfinite(found->get<double>()) || found->get<double>() < low) {
    return Wrong(where, field, absl::StrCat(Dump(*found), " is not a number of at least ", low));
  }
  *out = found->get<double>();
  return absl::OkStatus();
}

Json ToJson(const SampleRecord& record, bool is_selection) {
  Json json = {
      {"id", record.id}, {"offset", record.offset}, {"length", record.length}, {"label_begin", record.label_begin}};
  if (!record.source.empty()) json["source"] = record.source;
  if (record.split == Split::kValidation) json["split"] = Name(record.split);
  if (is_selection && record.split == Split::kTrain) {
    json["weight"] = record.weight;
    json["score"] = record.score;
    json["round"] = record.round;
  }
  return json;
}

absl::StatusOr<SampleRecord> ParseRecord(absl::string_view line, const std::string& where) {
  const Json json = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::DataLossError(absl::StrCat(where, ": is not a JSON object"));
  SampleRecord record;
  TY_RETURN_IF_ERROR(ReadText(json, where, "id", &record.id));
  TY_RETURN_IF_ERROR(ReadText(json, where, "source", &record.source));
  TY_RETURN_IF_ERROR(ReadInteger(json, where, "offset", 0, kLargest, &record.offset));
  TY_RETURN_IF_ERROR(ReadInteger(json, where, "length", 0, kLargest, &record.length));
  TY_RETURN_IF_ERROR(
      ReadInteger(json, where, "label_begin", 1, std::max<int64_t>(record.length, 1), &record.label_begin));
  std::string split = Name(Split::kTrain);
  TY_RETURN_IF_ERROR(ReadText(json, where, "split", &split));
  if (split == Name(Split::kValidation)) {
    record.split = Split::kValidation;
  } else if (split != Name(Split::kTrain)) {
    return Wrong(where, "split", absl::StrCat("\"", split, "\" is neither train nor validation"));
  }
  TY_RETURN_IF_ERROR(ReadNumber(json, where, "weight", 0, &record.weight));
  TY_RETURN_IF_ERROR(ReadNumber(json, where, "score", -std::numeric_limits<double>::max(), &record.score));
  if (json.contains("round")) TY_RETURN_IF_ERROR(ReadInteger(json, where, "round", 0, kLargest, &record.round));
  if (record.id.empty()) return Wrong(where, "id", "is missing or empty");
  return record;
}

}  // namespace

std::string SampleSetInfo::Fingerprint() const {
  return DigestOf(absl::StrCat("vocab ", vocab_size, " ", shard.info.digest, " ", index_digest));
}

absl::StatusOr<SampleSet> SampleSet::Open(const std::string& directory) {
  const std::string path = JoinPath(directory, kInfoFile);
  absl::StatusOr<std::string> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(
        absl::StrCat(directory, ": is no sample set (it has no samples.json); make one with `trainyard data samples`"));
  }
  TY_RETURN_IF_ERROR(text.status());
  const Json json = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::DataLossError(absl::StrCat(path, ": is not a JSON object (cut?)"));
  std::string format;
  TY_RETURN_IF_ERROR(ReadText(json, path, "format", &format));
  if (format != kFormat)
    return Wrong(path, "format", absl::StrCat("\"", format, "\" where \"", kFormat, "\" was expected"));
  SampleSetInfo info;
  int64_t version = 0, vocab_size = 0, end_of_text = -1;
  TY_RETURN_IF_ERROR(ReadInteger(json, path, "version", kVersion, kVersion, &version));
  TY_RETURN_IF_ERROR(ReadInteger(json, path, "vocab_size", 1, std::numeric_limits<int32_t>::max(), &vocab_size));
  TY_RETURN_IF_ERROR(ReadInteger(json, path, "end_of_text_id", -1, vocab_size - 1, &end_of_text));
  TY_RETURN_IF_ERROR(ReadInteger(json, path, "samples", 0, kLargest, &info.sample_count));
  TY_RETURN_IF_ERROR(ReadInteger(json, path, "without_labels", 0, info.sample_count, &info.unlabelled_count));
  TY_RETURN_IF_ERROR(ReadText(json, path, "tokenizer_digest", &info.tokenizer_digest));
  TY_RETURN_IF_ERROR(ReadText(json, path, "index_digest", &info.index_digest));
  TY_RETURN_IF_ERROR(ReadText(json, path, "tokens_digest", &info.shard.info.digest));
  if (const auto from = json.find("provenance"); from != json.end() && from->is_object()) {
    const std::string where = absl::StrCat(path, ".provenance");
    TY_RETURN_IF_ERROR(ReadText(*from, where, "method", &info.provenance.method));
    TY_RETURN_IF_ERROR(ReadText(*from, where, "job_uid", &info.provenance.job_uid));
    TY_RETURN_IF_ERROR(ReadText(*from, where, "pool_fingerprint", &info.provenance.pool_fingerprint));
    TY_RETURN_IF_ERROR(ReadText(*from, where, "target_fingerprint", &info.provenance.target_fingerprint));
    TY_RETURN_IF_ERROR(ReadInteger(*from, where, "pool_samples", 0, kLargest, &info.provenance.pool_samples));
  }
  info.vocab_size = static_cast<int32_t>(vocab_size);
  info.end_of_text_id = static_cast<int32_t>(end_of_text);
  info.shard.file = kShardFile;
  const std::string shard_path = JoinPath(directory, kShardFile);
  TY_ASSIGN_OR_RETURN(TokenShard shard, TokenShard::Open(shard_path));
  if (shard.info().digest != info.shard.info.digest || shard.info().vocab_size != info.vocab_size) {
    return absl::DataLossError(absl::StrCat(shard_path, ": has digest ", shard.info().digest, " and a vocabulary of ",
                                            shard.info().vocab_size, "; samples.json says ", info.shard.info.digest,
                                            " and ", info.vocab_size));
  }
  info.shard.info = shard.info();
  SampleSet set(directory, std::move(info), std::move(shard));
  TY_RETURN_IF_ERROR(set.ReadIndex());
  return set;
}

absl::Status SampleSet::ReadIndex() {
  const std::string path = JoinPath(directory_, kIndexFile);
  TY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  if (DigestOf(text) != info_.index_digest) {
    return absl::DataLossError(absl::StrCat(path, ": has not the digest that samples.json says"));
  }
  int64_t number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::string where = absl::StrCat(path, ":", ++number);
    TY_ASSIGN_OR_RETURN(SampleRecord record, ParseRecord(line, where));
    if (record.offset + record.length > shard_.info().token_count) {
      return absl::DataLossError(
          absl::StrCat(where, ": ends at token ", record.offset + record.length, " of ", shard_.info().token_count));
    }
    ++info_.sources[record.source];
    records_.push_back(std::move(record));
  }
  if (size() != info_.sample_count) {
    return absl::DataLossError(
        absl::StrCat(path, ": has ", size(), " samples; samples.json says ", info_.sample_count));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> SampleSet::Tokens(int64_t i, int64_t most) const {
  const SampleRecord& sample = record(i);
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(most, sample.length)));
  const int32_t largest = shard_.Copy(sample.offset, static_cast<int64_t>(tokens.size()), tokens.data());
  if (largest >= info_.vocab_size) {
    return absl::DataLossError(absl::StrCat(shard_.path(), ": sample \"", sample.id, "\" has token ", largest,
                                            ", which is not below the vocabulary of ", info_.vocab_size));
  }
  return tokens;
}

absl::StatusOr<std::string> SampleSet::ContentDigest(int64_t i) const {
  TY_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, Tokens(i, record(i).length));
  Digest digest;
  const int64_t label_begin = record(i).label_begin;
  digest.Update(&label_begin, sizeof(label_begin));
  digest.Update(tokens.data(), tokens.size() * sizeof(int32_t));
  return digest.Hex();
}

absl::StatusOr<SampleSetWriter> SampleSetWriter::Create(const std::string& directory, int32_t vocab_size,
                                                        int32_t end_of_text_id, const std::string& tokenizer_json) {
  TY_RETURN_IF_ERROR(MakeDirs(directory));
  TY_ASSIGN_OR_RETURN(TokenShardWriter shard, TokenShardWriter::Create(JoinPath(directory, kShardFile), vocab_size));
  SampleSetWriter writer(directory, std::move(shard), tokenizer_json);
  writer.info_.vocab_size = vocab_size;
  writer.info_.end_of_text_id = end_of_text_id;
  writer.info_.tokenizer_digest = DigestOf(tokenizer_json);
  return writer;
}

absl::Status SampleSetWriter::Add(SampleRecord record, absl::Span<const int32_t> tokens) {
  record.offset = shard_.token_count();
  record.length = static_cast<int64_t>(tokens.size());
  if (record.id.empty()) return absl::InvalidArgumentError("a sample's id is empty");
  if (!line_of_id_.emplace(record.id, size()).second) {
    return absl::InvalidArgumentError(absl::StrCat("the id \"", record.id, "\" was there before"));
  }
  if (record.label_begin < 1 || record.label_begin > std::max<int64_t>(record.length, 1)) {
    return absl::InvalidArgumentError(absl::StrCat("sample \"", record.id, "\": label_begin ", record.label_begin,
                                                   " not in [1, ", record.length, "]"));
  }
  TY_RETURN_IF_ERROR(shard_.Append(tokens));
  shard_.CountDocument();
  if (record.LabelCount(record.length) == 0) ++info_.unlabelled_count;
  ++info_.sources[record.source];
  records_.push_back(std::move(record));
  return absl::OkStatus();
}

absl::StatusOr<SampleSetInfo> SampleSetWriter::Finish(const SampleProvenance& provenance) {
  info_.sample_count = size();
  info_.provenance = provenance;
  TY_ASSIGN_OR_RETURN(info_.shard.info, shard_.Finish());
  info_.shard.file = kShardFile;
  std::string index;
  for (const SampleRecord& record : records_) {
    absl::StrAppend(&index, Dump(ToJson(record, !provenance.method.empty())), "\n");
  }
  info_.index_digest = DigestOf(index);
  TY_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(directory_, kIndexFile), index));
  TY_RETURN_IF_ERROR(WriteFileAtomic(TokenizerPath(directory_), tokenizer_json_));
  Json json = {{"format", kFormat},
               {"version", kVersion},
               {"vocab_size", info_.vocab_size},
               {"end_of_text_id", info_.end_of_text_id},
               {"tokenizer_digest", info_.tokenizer_digest},
               {"samples", info_.sample_count},
               {"without_labels", info_.unlabelled_count},
               {"tokens", info_.shard.info.token_count},
               {"tokens_digest", info_.shard.info.digest},
               {"index_digest", info_.index_digest},
               {"sources", Json(info_.sources)}};
  if (!provenance.method.empty()) {
    json["provenance"] = {{"method", provenance.method},
                          {"job_uid", provenance.job_uid},
                          {"pool_fingerprint", provenance.pool_fingerprint},
                          {"target_fingerprint", provenance.target_fingerprint},
                          {"pool_samples", provenance.pool_samples}};
  }
  TY_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(directory_, kInfoFile),
                                     json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"));
  return info_;
}

}  // namespace trainyard::data
