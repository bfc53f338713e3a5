// What may be removed once a checkpoint is committed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proto/v1/checkpoint.pb.h"

namespace trainyard::ckpt {

// Splits off the manifests beyond the first `keep_last` (newest first) and returns them.
std::vector<v1::CheckpointManifest> DropOld(int keep_last, std::vector<v1::CheckpointManifest>* committed);

// Folders, relative to the job's root, of checkpoints that no list names and whose attempt is dead: its fence is below
// `fence`, whose holder has just committed. Sorted.
std::vector<std::string> StaleCheckpoints(const std::string& job_root, uint64_t fence,
                                          const std::vector<v1::CheckpointManifest>& committed);

}  // namespace trainyard::ckpt
