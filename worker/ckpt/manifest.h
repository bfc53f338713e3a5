// Where checkpoints lie, and the manifest as a file.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/v1/checkpoint.pb.h"

namespace trainyard::ckpt {

inline constexpr int kManifestFormatVersion = 1;

// "attempt-<n>-fence-<f>"
std::string AttemptDirectory(int32_t attempt, uint64_t fence);
// "attempt-<n>-fence-<f>/checkpoints/step-<8 digits>"
std::string CheckpointDirectory(int32_t attempt, uint64_t fence, int64_t step);
std::string ShardFile(int rank);  // "rank-<r>.safetensors"

// The fence in an attempt folder's name; false for a name that is none.
bool ParseAttemptDirectory(const std::string& name, int32_t* attempt, uint64_t* fence);

// InvalidArgument unless the version is known, the folder is relative and does not lead out of the job's root, and
// there is one shard a rank with its name, a size and a digest.
absl::Status CheckManifest(const v1::CheckpointManifest& manifest);

// manifest.json: proto JSON with the field names of checkpoint.proto.
std::string ManifestToJson(const v1::CheckpointManifest& manifest);
absl::Status WriteManifest(const std::string& checkpoint_folder, const v1::CheckpointManifest& manifest);  // durable
// NotFound without the file, DataLoss if it is cut or altered beyond reading. For tools; a job resumes from the
// coordinator's record instead.
absl::StatusOr<v1::CheckpointManifest> ReadManifest(const std::string& checkpoint_folder);

}  // namespace trainyard::ckpt
