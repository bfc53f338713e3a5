#include "coordinator/web/web_api.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "coordinator/api/list_jobs.h"
#include "coordinator/store/metric_points.h"

namespace trainyard::coordinator {
namespace {

constexpr absl::Duration kSharedFor = absl::Seconds(1);
constexpr int kMaxJobs = 200;  // rows of one answer
constexpr int kMaxWorkers = 200;
constexpr int kMaxPoints = 2000;
constexpr int kDefaultPoints = 600;
constexpr int kTrialsAtATime = 2000;  // looked at in one read of the engine
constexpr int64_t kMaxLogBytes = 256 << 10;
constexpr size_t kLogFrame = 64 << 10;

HttpResponse Json(std::string body) {
  return {.status = 200, .body = std::move(body)};
}

// A whole number in [minimum, maximum] from the query; `otherwise` if it is not given.
absl::StatusOr<int64_t> Number(const HttpRequest& request, const std::string& name, int64_t otherwise, int64_t minimum,
                               int64_t maximum) {
  const std::string& text = request.Query(name);
  if (text.empty()) return otherwise;
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < minimum || value > maximum) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": \"", text, "\" is not a whole number in [", minimum, ", ", maximum, "]"));
  }
  return value;
}

}  // namespace

HttpResponse FailureResponse(const absl::Status& status) {
  return {.status = HttpStatusOf(status), .body = ErrorJson(status)};
}

WebApi::WebApi(const WebViewParts& parts, EventLoop* loop, Reply reply)
    : parts_(parts), loop_(loop), reply_(std::move(reply)) {}

absl::Status WebApi::Handle(RequestId id, const HttpRequest& request, const std::vector<std::string>& path) {
  const absl::Status unknown = absl::NotFoundError("there is no such document");
  if (path[0] == "jobs" && path.size() >= 2 && !path[1].empty()) {
    if (path.size() > 3) return unknown;
    return Job(id, request, path[1], path.size() == 3 ? path[2] : "");
  }
  if (path.size() != 1) return unknown;
  if (path[0] == "overview") {
    WithWorkers([this, id] { reply_(id, Json(OverviewJson(overview_, parts_.info))); });
    return absl::OkStatus();
  }
  if (path[0] == "workers") {
    TY_ASSIGN_OR_RETURN(const int64_t offset, Number(request, "offset", 0, 0, 1'000'000));
    TY_ASSIGN_OR_RETURN(const int64_t limit, Number(request, "limit", 100, 1, kMaxWorkers));
    WithWorkers([this, id, offset, limit] {
      reply_(id,
             Json(WorkersJson(overview_.revision, workers_, static_cast<size_t>(offset), static_cast<size_t>(limit))));
    });
    return absl::OkStatus();
  }
  if (path[0] == "queue") {
    TY_ASSIGN_OR_RETURN(const int64_t limit, Number(request, "limit", 100, 1, kMaxJobs));
    Read(
        id,
        [limit](const Core& core, Store&, Now now) {
          return absl::StatusOr<QueueView>(CollectQueue(core, static_cast<size_t>(limit), now));
        },
        [](const QueueView& queue) { return Json(QueueJson(queue)); });
    return absl::OkStatus();
  }
  if (path[0] == "jobs") {
    v1::ListRequest list;
    TY_ASSIGN_OR_RETURN(const int64_t size, Number(request, "page_size", 100, 1, kMaxJobs));
    list.set_page_size(static_cast<int32_t>(size));
    list.set_namespace_(request.Query("namespace"));
    list.set_filter(request.Query("filter"));
    list.set_page_token(request.Query("page_token"));
    list.set_include_trials(request.Query("include_trials") == "1");
    Read(
        id, [list](const Core& core, Store&, Now now) { return ListJobs(core, list, now); },
        [](v1::ListResponse& response) {
          for (v1::Job& job : *response.mutable_jobs()) TrimForRow(&job);
          return Json(ListJson(response));
        });
    return absl::OkStatus();
  }
  return unknown;
}

// ---- one job ----

absl::Status WebApi::Job(RequestId id, const HttpRequest& request, const std::string& uid, const std::string& what) {
  const auto no_job = [uid] {
    return absl::NotFoundError(absl::StrCat("there is no job ", uid, "; it may have been deleted"));
  };
  if (what.empty()) {
    Read(
        id,
        [uid, no_job](const Core& core, Store&, Now now) -> absl::StatusOr<std::pair<uint64_t, v1::Job>> {
          if (core.Record(uid) == nullptr) return no_job();
          return std::make_pair(core.revision(), core.View(uid, now));
        },
        [](std::pair<uint64_t, v1::Job>& page) {
          TrimForPage(&page.second);
          return Json(JobPageJson(page.first, page.second));
        });
    return absl::OkStatus();
  }
  if (what == "metrics") {
    TY_ASSIGN_OR_RETURN(const int64_t after, Number(request, "after_step", -1, -1, INT64_MAX));
    TY_ASSIGN_OR_RETURN(const int64_t points, Number(request, "max_points", kDefaultPoints, 1, kMaxPoints));
    const std::vector<std::string> names = absl::StrSplit(request.Query("names"), ',', absl::SkipEmpty());
    Read(
        id,
        [uid, no_job, after](const Core& core, Store& store, Now) -> absl::StatusOr<StoredPoints> {
          if (core.Record(uid) == nullptr) return no_job();
          return store.ReadMetrics(uid, after);
        },
        [names, points](const StoredPoints& stored) {
          const auto chosen = ChoosePoints(stored, {.names = names, .max_points = static_cast<int>(points)});
          return chosen.ok() ? Json(MetricsJson(*chosen, names)) : FailureResponse(chosen.status());
        });
    return absl::OkStatus();
  }
  if (what == "generations") {
    TY_ASSIGN_OR_RETURN(const int64_t from, Number(request, "from", 0, 0, INT64_MAX));
    Read(
        id,
        [uid, no_job, from](const Core& core, Store&, Now now) -> absl::StatusOr<GenerationsView> {
          if (core.Record(uid) == nullptr) return no_job();
          return CollectGenerations(core, core.View(uid, now), from, kTrialsAtATime);
        },
        [](const GenerationsView& view) { return Json(GenerationsJson(view)); });
    return absl::OkStatus();
  }
  if (what == "trials") {
    TY_ASSIGN_OR_RETURN(const int64_t generation, Number(request, "generation", 1, 0, INT64_MAX));
    TY_ASSIGN_OR_RETURN(const int64_t offset, Number(request, "offset", 0, 0, 1'000'000));
    TY_ASSIGN_OR_RETURN(const int64_t limit, Number(request, "limit", 100, 1, kMaxJobs));
    using Trials = std::pair<size_t, std::vector<v1::Job>>;
    Read(
        id,
        [=](const Core& core, Store&, Now now) -> absl::StatusOr<Trials> {
          if (core.Record(uid) == nullptr) return no_job();
          Trials trials;
          trials.second = CollectTrials(core, uid, generation, static_cast<size_t>(offset), static_cast<size_t>(limit),
                                        now, &trials.first);
          return trials;
        },
        [](const Trials& trials) { return Json(TrialsJson(trials.first, trials.second)); });
    return absl::OkStatus();
  }
  if (what == "logs") return Logs(id, request, uid);
  return absl::NotFoundError("there is no such document");
}

absl::Status WebApi::Logs(RequestId id, const HttpRequest& request, const std::string& uid) {
  TY_ASSIGN_OR_RETURN(const int64_t attempt, Number(request, "attempt", 1, 1, INT32_MAX));
  TY_ASSIGN_OR_RETURN(const int64_t rank, Number(request, "rank", 0, 0, INT32_MAX));
  TY_ASSIGN_OR_RETURN(const int64_t offset, Number(request, "offset", -(64 << 10), INT64_MIN / 2, INT64_MAX / 2));
  TY_ASSIGN_OR_RETURN(const int64_t limit, Number(request, "limit", kMaxLogBytes, 1, kMaxLogBytes));
  const std::string stream = request.Query("stream").empty() ? "stderr" : request.Query("stream");
  if (stream != "stdout" && stream != "stderr") {
    return absl::InvalidArgumentError("stream: must be stdout or stderr");
  }
  const LogKey key{uid, static_cast<int>(attempt), static_cast<int>(rank), stream};
  Read(
      id,
      [key](const Core& core, Store&, Now) -> absl::StatusOr<bool> {
        // Also keeps what is no uid away from paths.
        const JobRecord* record = core.Record(key.job_uid);
        if (record == nullptr) return absl::NotFoundError(absl::StrCat("there is no job ", key.job_uid));
        for (const v1::Attempt& attempt : record->job().attempts()) {
          if (attempt.number() == key.attempt && key.rank < attempt.places_size()) return true;
        }
        return absl::NotFoundError(
            absl::StrCat("job ", record->job().name(), " has no rank ", key.rank, " in attempt ", key.attempt));
      },
      [this, key, offset, limit](bool) { return LogResponse(key, offset, limit); });
  return absl::OkStatus();
}

HttpResponse WebApi::LogResponse(const LogKey& key, int64_t offset, int64_t limit) const {
  LogTail tail;
  tail.has_ended = parts_.logs->HasEnded(key);  // before the size, so that nothing is missed
  tail.size = parts_.logs->Size(key);
  tail.next_offset = offset < 0 ? std::max<int64_t>(0, tail.size + offset) : offset;
  while (limit > 0) {
    const auto piece = parts_.logs->Read(key, tail.next_offset, std::min(kLogFrame, static_cast<size_t>(limit)));
    if (!piece.ok()) return FailureResponse(piece.status());
    if (piece->data.empty() && piece->gap_bytes == 0) break;
    v1::LogFrame& frame = tail.frames.emplace_back();
    frame.set_attempt(key.attempt);
    frame.set_rank(key.rank);
    frame.set_stream(key.stream);
    frame.set_offset(piece->offset);
    frame.set_gap_bytes(piece->gap_bytes);
    frame.set_data(piece->data);
    tail.next_offset = piece->offset + static_cast<int64_t>(piece->data.size());
    limit -= std::max<int64_t>(1, static_cast<int64_t>(piece->data.size()));
  }
  return Json(LogJson(tail));
}

// ---- shared reads ----

void WebApi::ReadShared(SharedRead* shared, std::function<void(const Core&, Now)> collect, std::function<void()> use) {
  if (shared->made_at && RealClock()->Monotonic() - *shared->made_at < kSharedFor && !shared->is_asked) return use();
  shared->waiting.push_back(std::move(use));
  if (std::exchange(shared->is_asked, true)) return;
  parts_.engine->Read([this, shared, collect = std::move(collect)](const Core& core, Store&, Now now) {
    collect(core, now);
    loop_->Post([this, shared] {
      shared->is_asked = false;
      shared->made_at = RealClock()->Monotonic();
      for (const auto& waiting : std::exchange(shared->waiting, {})) waiting();
    });
  });
}

void WebApi::WithWorkers(std::function<void()> use) {
  ReadShared(
      &cluster_read_,
      [this](const Core& core, Now now) {
        workers_ = core.Workers();
        overview_ = CollectOverview(core, workers_, now);
      },
      std::move(use));
}

}  // namespace trainyard::coordinator
