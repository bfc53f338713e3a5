#include "worker/daemon/gpu/fault_log.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::daemon {

// "boot <id>", then lines "<uuid> <xid> <unix seconds>".
absl::StatusOr<FaultLog> FaultLog::Open(std::string path, std::string boot_id) {
  FaultLog log(std::move(path), std::move(boot_id));
  if (!FileExists(log.path_)) return log;
  TY_ASSIGN_OR_RETURN(const std::string content, ReadFile(log.path_));
  const std::vector<std::string> lines = absl::StrSplit(content, '\n', absl::SkipEmpty());
  if (lines.empty() || !absl::StartsWith(lines[0], "boot ")) {
    return absl::DataLossError(absl::StrCat(log.path_, " is not a list of GPU faults; remove it to forget them"));
  }
  if (lines[0] != absl::StrCat("boot ", log.boot_id_)) return log;
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::vector<std::string> words = absl::StrSplit(lines[i], ' ');
    int xid = 0;
    int64_t seconds = 0;
    if (words.size() != 3 || !absl::SimpleAtoi(words[1], &xid) || !absl::SimpleAtoi(words[2], &seconds)) {
      return absl::DataLossError(absl::StrCat(log.path_, ", line ", i + 1, ": '", lines[i],
                                              "' is not a GPU fault; remove the file to forget them"));
    }
    log.faults_[words[0]].emplace(xid, absl::FromUnixSeconds(seconds));
  }
  return log;
}

absl::Status FaultLog::Add(const XidEvent& event, absl::Time wall) {
  if (!faults_[event.uuid].emplace(event.xid, wall).second) return absl::OkStatus();
  std::string content = absl::StrCat("boot ", boot_id_, "\n");
  for (const auto& [uuid, xids] : faults_) {
    for (const auto& [xid, time] : xids)
      absl::StrAppend(&content, uuid, " ", xid, " ", absl::ToUnixSeconds(time), "\n");
  }
  return WriteFileAtomic(path_, content);
}

std::vector<int> FaultLog::xids(const std::string& uuid) const {
  std::vector<int> xids;
  const auto found = faults_.find(uuid);
  if (found == faults_.end()) return xids;
  for (const auto& [xid, time] : found->second) xids.push_back(xid);
  return xids;
}

std::string BootId() {
  const absl::StatusOr<std::string> id = ReadFile("/proc/sys/kernel/random/boot_id");
  return id.ok() ? std::string(absl::StripAsciiWhitespace(*id)) : "";
}

}  // namespace trainyard::daemon
