#include "worker/daemon/task_record.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::daemon {
namespace {

// Text lines "process <rank> <pid> <start ticks>", an empty line, then the report as protobuf.
std::string PathOf(const std::string& directory, const v1::AttemptRef& ref) {
  return absl::StrCat(directory, "/", ref.job_uid(), "-", ref.attempt());
}

}  // namespace

absl::Status SaveTaskRecord(const std::string& directory, const TaskRecord& record) {
  std::string content;
  for (const auto& [rank, process] : record.processes) {
    absl::StrAppend(&content, "process ", rank, " ", process.pid, " ", process.start_ticks, "\n");
  }
  absl::StrAppend(&content, "\n", record.report.SerializeAsString());
  return WriteFileAtomic(PathOf(directory, record.report.ref()), content);
}

void RemoveTaskRecord(const std::string& directory, const v1::AttemptRef& ref) {
  unlink(PathOf(directory, ref).c_str());
}

absl::StatusOr<std::vector<TaskRecord>> LoadTaskRecords(const std::string& directory) {
  std::vector<TaskRecord> records;
  TY_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(directory));
  for (const std::string& name : names) {
    const std::string path = JoinPath(directory, name);
    if (absl::EndsWith(name, ".tmp")) {  // a write that a crash cut short
      unlink(path.c_str());
      continue;
    }
    TY_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
    TaskRecord record;
    size_t at = 0;
    bool good = true;
    while (good && at < content.size() && content[at] != '\n') {
      const size_t end = content.find('\n', at);
      int rank = 0, pid = 0;
      unsigned long long ticks = 0;
      good = end != std::string::npos &&
             std::sscanf(content.substr(at, end - at).c_str(), "process %d %d %llu", &rank, &pid, &ticks) == 3;
      record.processes[rank] = {pid, ticks};
      at = end + 1;
    }
    if (!good || at >= content.size() || !record.report.ParseFromString(content.substr(at + 1))) {
      return absl::DataLossError(absl::StrCat(path, " is not a task record"));
    }
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace trainyard::daemon
