#include "worker/ckpt/retention.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "worker/ckpt/manifest.h"

namespace trainyard::ckpt {

std::vector<v1::CheckpointManifest> DropOld(int keep_last, std::vector<v1::CheckpointManifest>* committed) {
  std::vector<v1::CheckpointManifest> old;
  if (static_cast<int>(committed->size()) <= keep_last) return old;
  old.assign(committed->begin() + keep_last, committed->end());
  committed->resize(static_cast<size_t>(keep_last));
  return old;
}

std::vector<std::string> StaleCheckpoints(const std::string& job_root, uint64_t fence,
                                          const std::vector<v1::CheckpointManifest>& committed) {
  std::set<std::string> kept;
  for (const v1::CheckpointManifest& manifest : committed) kept.insert(manifest.directory());
  std::vector<std::string> stale;
  const auto attempts = ListDir(job_root);
  if (!attempts.ok()) return stale;  // nothing can be removed from a folder that cannot be read
  for (const std::string& name : *attempts) {
    int32_t attempt = 0;
    uint64_t its_fence = 0;
    if (!ParseAttemptDirectory(name, &attempt, &its_fence) || its_fence >= fence) continue;
    const std::string folder = absl::StrCat(name, "/checkpoints");
    const auto steps = ListDir(JoinPath(job_root, folder));
    if (!steps.ok()) continue;  // an attempt that saved nothing
    for (const std::string& step : *steps) {
      const std::string directory = absl::StrCat(folder, "/", step);
      if (absl::StartsWith(step, "step-") && kept.count(directory) == 0) stale.push_back(directory);
    }
  }
  return stale;
}

}  // namespace trainyard::ckpt
