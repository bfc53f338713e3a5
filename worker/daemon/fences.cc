#include "worker/daemon/fences.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::daemon {
namespace {

// Lines "epoch <n>" and "slot <index> <fence>": few, and readable for whoever has to look.
constexpr char kHeader[] = "trainyard-fences 1";

}  // namespace

absl::StatusOr<Fences> Fences::Open(const std::string& path) {
  Fences fences(path);
  if (!FileExists(path)) return fences;
  TY_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
  const std::vector<std::string> lines = absl::StrSplit(content, '\n', absl::SkipEmpty());
  bool good = !lines.empty() && lines[0] == kHeader;
  for (size_t i = 1; good && i < lines.size(); ++i) {
    const std::vector<std::string> words = absl::StrSplit(lines[i], ' ');
    int slot = 0;
    uint64_t fence = 0;
    if (words.size() == 2 && words[0] == "epoch") {
      good = absl::SimpleAtoi(words[1], &fences.max_epoch_);
    } else if (words.size() == 3 && words[0] == "slot" && absl::SimpleAtoi(words[1], &slot) &&
               absl::SimpleAtoi(words[2], &fence)) {
      fences.slot_fence_[slot] = fence;
    } else {
      good = false;
    }
  }
  if (!good) return absl::DataLossError(absl::StrCat(path, " is not a fence file of this program"));
  return fences;
}

absl::Status Fences::AdmitEpoch(uint64_t leader_epoch) {
  if (leader_epoch < max_epoch_) {
    return absl::FailedPreconditionError(
        absl::StrCat("leader epoch ", leader_epoch, " is older than ", max_epoch_, ", which this worker has seen"));
  }
  if (leader_epoch == max_epoch_) return absl::OkStatus();
  const uint64_t before = std::exchange(max_epoch_, leader_epoch);
  absl::Status saved = Save();
  if (!saved.ok()) max_epoch_ = before;
  return saved;
}

absl::Status Fences::AdmitFence(int slot, uint64_t fence) {
  uint64_t& seen = slot_fence_[slot];
  if (fence < seen) {
    return absl::FailedPreconditionError(
        absl::StrCat("fence ", fence, " is older than ", seen, ", which slot ", slot, " has seen"));
  }
  if (fence == seen) return absl::OkStatus();
  const uint64_t before = std::exchange(seen, fence);
  absl::Status saved = Save();
  if (!saved.ok()) seen = before;
  return saved;
}

uint64_t Fences::max_fence() const {
  uint64_t largest = 0;
  for (const auto& [slot, fence] : slot_fence_) largest = std::max(largest, fence);
  return largest;
}

absl::Status Fences::Save() const {
  std::string content = absl::StrCat(kHeader, "\nepoch ", max_epoch_, "\n");
  for (const auto& [slot, fence] : slot_fence_) absl::StrAppend(&content, "slot ", slot, " ", fence, "\n");
  return WriteFileAtomic(path_, content);
}

}  // namespace trainyard::daemon
