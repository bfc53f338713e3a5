// What a daemon keeps on disk about each task until the coordinator has acknowledged its end, so that the next daemon
// can end left-over processes and report.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/v1/worker.pb.h"

namespace trainyard::daemon {

struct RecordedProcess {
  int pid = 0;
  uint64_t start_ticks = 0;
};

struct TaskRecord {
  v1::TaskReport report;
  std::map<int, RecordedProcess> processes;  // by rank, from its start until its group is empty
};

// One file a task: <directory>/<uid>-<attempt>.
absl::Status SaveTaskRecord(const std::string& directory, const TaskRecord& record);
void RemoveTaskRecord(const std::string& directory, const v1::AttemptRef& ref);
// All records of the folder; DataLoss names a file that is none.
absl::StatusOr<std::vector<TaskRecord>> LoadTaskRecords(const std::string& directory);

}  // namespace trainyard::daemon
