#include "worker/daemon/gpu/job_mapping.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::daemon {

absl::StatusOr<JobMapping> JobMapping::Create(std::string directory, const std::set<int>& indices) {
  JobMapping mapping(std::move(directory));
  if (mapping.directory_.empty()) return mapping;
  TY_RETURN_IF_ERROR(MakeDirs(mapping.directory_));
  for (const int index : indices) TY_RETURN_IF_ERROR(mapping.Clear(index));
  // Writes that a crash has cut short.
  TY_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(mapping.directory_));
  for (const std::string& name : names) {
    int index = -1;
    const bool is_ours = absl::EndsWith(name, ".tmp") && absl::SimpleAtoi(name.substr(0, name.find('.')), &index) &&
                         indices.count(index) > 0;
    if (is_ours) TY_RETURN_IF_ERROR(RemoveTree(JoinPath(mapping.directory_, name)));
  }
  return mapping;
}

absl::Status JobMapping::Set(int index, const std::string& job_id) const {
  if (directory_.empty()) return absl::OkStatus();
  return WriteFileAtomic(absl::StrCat(directory_, "/", index), absl::StrCat(job_id, "\n"));
}

absl::Status JobMapping::Clear(int index) const {
  if (directory_.empty()) return absl::OkStatus();
  return RemoveTree(absl::StrCat(directory_, "/", index));
}

}  // namespace trainyard::daemon
