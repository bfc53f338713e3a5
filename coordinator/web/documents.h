// What the page gets: JSON, mostly the proto JSON of the API's own messages (int64 as strings, bytes as base64, enums
// by name), less what a page does not show. All are pure functions. `Collect...` run on the engine's thread and only
// copy;
// `...Json` run on the view's own thread, where time is cheaper.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/core/core.h"
#include "proto/v1/coordinator.pb.h"

namespace trainyard::coordinator {

// {"error": {"code": "NOT_FOUND", "message": ...}}
std::string ErrorJson(const absl::Status& status);
int HttpStatusOf(const absl::Status& status);

// ---- jobs ----

// Leaves of a job what a row of a table shows: no spec but `world`, the newest attempt without places, no log lines, no
// documents, the newest generation, and of the values of progress and result those that a row has columns for.
void TrimForRow(v1::Job* job);
// Leaves what the page of one job shows: documents become empty texts, so that only their names remain.
void TrimForPage(v1::Job* job);
std::string JobJson(const v1::Job& job);
// {"revision": ..., "job": {...}}
std::string JobPageJson(uint64_t revision, const v1::Job& job);
// {"jobs": [...], "nextPageToken": ..., "revision": ...}
std::string ListJson(const v1::ListResponse& list);
std::string ProgressJson(const v1::ProgressEvent& event);
// For a row: of the values those that it has columns for.
void TrimForRow(v1::JobProgress* progress);

// ---- the queue ----

struct QueueView {
  uint64_t revision = 0;
  size_t total = 0;
  std::vector<v1::Job> jobs;  // in the order in which they are tried
};
QueueView CollectQueue(const Core& core, size_t limit, Now now);
// {"revision": ..., "total": ..., "jobs": [...]}
std::string QueueJson(const QueueView& queue);

// ---- the cluster ----

struct OverviewView {
  uint64_t revision = 0;
  std::map<v1::JobState, int> jobs;  // trials among them
  std::map<v1::PendingReason::Code, int> pending;
  std::map<v1::WorkerState, int> workers;
  std::map<std::pair<v1::SlotType, v1::SlotState>, int> slots;
};
OverviewView CollectOverview(const Core& core, const v1::ListWorkersResponse& workers, Now now);
// {"version": ..., "leaderEpoch": ..., "startTime": ..., "revision": ..., "jobs": {"RUNNING": 1}, "pending": {...},
//  "workers": {...}, "slots": {"CPU": {"FREE": 1}}}
std::string OverviewJson(const OverviewView& overview, const v1::ServerInfo& info);

// Those in trouble first (refused, lost, disconnected, with unhealthy slots), then by id; `offset` and `limit` cut a
// page out. {"revision": ..., "total": ..., "workers": [...]}
std::string WorkersJson(uint64_t revision, const v1::ListWorkersResponse& all, size_t offset, size_t limit);

// ---- numbers ----

// {"names": [all that occur], "steps": [...], "attempts": [...], "times": [ms], "values": {"loss": [...]}}: columns of
// equal length, null where a step has no such value. `wanted` chooses columns; empty: all.
std::string MetricsJson(const std::vector<v1::MetricPoint>& points, const std::vector<std::string>& wanted);

// ---- searches ----

struct GenerationView {
  v1::GenerationSummary summary;
  std::map<std::string, double> lowest;  // over the trials that succeeded, by name of the result's value
};
struct GenerationsView {
  std::vector<GenerationView> generations;
  int64_t next = 0;  // the number to go on with; 0: that was all
};
// From number `from` on, until `budget` trials have been looked at (at least one generation).
GenerationsView CollectGenerations(const Core& core, const v1::Job& parent, int64_t from, int budget);
// {"generations": [{"summary": {...}, "lowest": {...}}], "next": ...}
std::string GenerationsJson(const GenerationsView& view);

// Rows of one generation's trials from `first` on; the total goes to `*total`.
std::vector<v1::Job> CollectTrials(const Core& core, const std::string& parent_uid, int64_t generation, size_t first,
                                   size_t limit, Now now, size_t* total);
// {"total": ..., "jobs": [...]}
std::string TrialsJson(size_t total, const std::vector<v1::Job>& trials);

// ---- logs ----

struct LogTail {
  int64_t size = 0;  // of the stream now
  bool has_ended = false;
  std::vector<v1::LogFrame> frames;
  int64_t next_offset = 0;
};
// {"size": "...", "ended": ..., "nextOffset": "...", "frames": [...]}
std::string LogJson(const LogTail& tail);

}  // namespace trainyard::coordinator
