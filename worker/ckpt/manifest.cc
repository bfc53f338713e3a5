#include "worker/ckpt/manifest.h"

#include <google/protobuf/util/json_util.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::ckpt {

std::string AttemptDirectory(int32_t attempt, uint64_t fence) {
  return absl::StrCat("attempt-", attempt, "-fence-", fence);
}

std::string CheckpointDirectory(int32_t attempt, uint64_t fence, int64_t step) {
  return absl::StrCat(AttemptDirectory(attempt, fence), "/checkpoints/step-", absl::Dec(step, absl::kZeroPad8));
}

std::string ShardFile(int rank) {
  return absl::StrCat("rank-", rank, ".safetensors");
}

bool ParseAttemptDirectory(const std::string& name, int32_t* attempt, uint64_t* fence) {
  int32_t number = 0;
  unsigned long long token = 0;
  if (std::sscanf(name.c_str(), "attempt-%d-fence-%llu", &number, &token) != 2) return false;
  *attempt = number;
  *fence = token;
  return AttemptDirectory(number, token) == name;
}

absl::Status CheckManifest(const v1::CheckpointManifest& manifest) {
  const auto bad = [&](const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat("manifest of checkpoint step ", manifest.step(), ": ", why));
  };
  if (manifest.format_version() != kManifestFormatVersion) {
    return bad(
        absl::StrCat("format_version ", manifest.format_version(), ", this program reads ", kManifestFormatVersion));
  }
  if (manifest.directory().empty() || manifest.directory().front() == '/') {
    return bad(absl::StrCat("directory \"", manifest.directory(), "\" is not relative to the job's root"));
  }
  for (absl::string_view part : absl::StrSplit(manifest.directory(), '/')) {
    if (part == "..") return bad(absl::StrCat("directory \"", manifest.directory(), "\" leads out of the job's root"));
  }
  if (manifest.step() < 0) return bad("negative step");
  if (manifest.world_size() < 1 || manifest.shards_size() != manifest.world_size()) {
    return bad(absl::StrCat(manifest.shards_size(), " shards for ", manifest.world_size(), " ranks"));
  }
  for (int rank = 0; rank < manifest.shards_size(); ++rank) {
    const v1::CheckpointShard& shard = manifest.shards(rank);
    if (shard.file() != ShardFile(rank) || shard.bytes() <= 0 || shard.digest().empty()) {
      return bad(absl::StrCat("shard ", rank, " is \"", shard.file(), "\" of ", shard.bytes(), " bytes, digest \"",
                              shard.digest(), "\""));
    }
  }
  return absl::OkStatus();
}

std::string ManifestToJson(const v1::CheckpointManifest& manifest) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  // Our own message: it fails only for strings that are not UTF-8, and ours are names and digests.
  TY_CHECK(google::protobuf::util::MessageToJsonString(manifest, &json, options).ok());
  return json;
}

absl::Status WriteManifest(const std::string& checkpoint_folder, const v1::CheckpointManifest& manifest) {
  return WriteFileAtomic(JoinPath(checkpoint_folder, "manifest.json"), ManifestToJson(manifest));
}

absl::StatusOr<v1::CheckpointManifest> ReadManifest(const std::string& checkpoint_folder) {
  const std::string path = JoinPath(checkpoint_folder, "manifest.json");
  TY_ASSIGN_OR_RETURN(const std::string json, ReadFile(path));
  v1::CheckpointManifest manifest;
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, &manifest);
  if (!parsed.ok()) return absl::DataLossError(absl::StrCat(path, " is damaged: ", std::string(parsed.message())));
  TY_RETURN_IF_ERROR(CheckManifest(manifest));
  return manifest;
}

}  // namespace trainyard::ckpt
