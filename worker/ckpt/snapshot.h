// This rank's part of one checkpoint, copied out of the training's memory.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/model/safetensors.h"

namespace trainyard::ckpt {

class Snapshot {
 public:
  Snapshot(int rank, int ranks) : rank_(rank), ranks_(ranks) {}

  // Makes the memory for what `writer` names, without copying. InvalidArgument for names given twice.
  absl::Status Reserve(const CheckpointWriter& writer);
  // Reserve, then copies.
  absl::Status Take(const CheckpointWriter& writer);

  int64_t bytes() const { return static_cast<int64_t>(buffer_.size()); }

  // Writes the copy as a shard.
  absl::StatusOr<model::SafetensorsFileInfo> Write(const std::string& path) const;

 private:
  absl::Status Plan(const CheckpointWriter& writer);

  const int rank_, ranks_;
  std::vector<model::SafetensorsTensorSpec> specs_;
  std::vector<const void*> sources_;
  std::vector<int64_t> offsets_, sizes_;
  std::map<std::string, std::string> texts_;
  std::vector<char> buffer_;
};

}  // namespace trainyard::ckpt
