#include "coordinator/web/documents.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "coordinator/web/json_text.h"

namespace trainyard::coordinator {
namespace {

// Names of result values kept for one generation: methods report a handful.
constexpr size_t kScoreNames = 32;

std::string Proto(const google::protobuf::Message& message) {
  std::string json;
  // It can only fail for well-known types with values out of range (a time before the year 1): shown as nothing.
  if (!google::protobuf::util::MessageToJsonString(message, &json).ok()) return "{}";
  return json;
}

template <typename List, typename ToText>
std::string Array(const List& list, const ToText& to_text) {
  return absl::StrCat("[", absl::StrJoin(list, ",", [&](std::string* out, const auto& item) { *out += to_text(item); }),
                      "]");
}

// {"NAME": count}, zeros left out.
template <typename Key>
std::string Counts(const std::map<Key, int>& counts) {
  std::vector<std::string> pairs;
  for (const auto& [key, count] : counts) {
    if (count > 0) pairs.push_back(absl::StrCat(JsonString(ShortName(key)), ":", count));
  }
  return absl::StrCat("{", absl::StrJoin(pairs, ","), "}");
}

void KeepValues(google::protobuf::Map<std::string, double>* values) {
  static const auto* const kShown = new std::set<std::string>{"loss",
                                                              "evaluation_loss",
                                                              "loss_g",
                                                              "loss_d",
                                                              "tokens_per_second",
                                                              "images_per_second",
                                                              "mfu",
                                                              "learning_rate",
                                                              "compression_ratio",
                                                              "final_loss",
                                                              "fitness",
                                                              "kl",
                                                              "perplexity",
                                                              "tuned_kl",
                                                              "parameters",
                                                              "tuned_perplexity",
                                                              "tokens"};
  for (auto it = values->begin(); it != values->end();) {
    it = kShown->contains(it->first) ? std::next(it) : values->erase(it);
  }
}

}  // namespace

std::string ErrorJson(const absl::Status& status) {
  return absl::StrCat("{\"error\":{\"code\":", JsonString(absl::StatusCodeToString(status.code())),
                      ",\"message\":", JsonString(status.message()), "}}");
}

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
      return 503;
    default:
      return 500;
  }
}

// ---- jobs ----

void TrimForRow(v1::JobProgress* progress) {
  KeepValues(progress->mutable_values());
}

void TrimForRow(v1::Job* job) {
  v1::World world;
  world.Swap(job->mutable_spec()->mutable_world());
  job->clear_spec();
  job->mutable_spec()->mutable_world()->Swap(&world);
  if (job->attempts_size() > 1) job->mutable_attempts()->DeleteSubrange(0, job->attempts_size() - 1);
  for (v1::Attempt& attempt : *job->mutable_attempts()) {
    attempt.clear_places();
    attempt.mutable_exit()->clear_last_log_lines();
  }
  if (job->has_exit()) job->mutable_exit()->clear_last_log_lines();
  if (job->generations_size() > 1) job->mutable_generations()->DeleteSubrange(0, job->generations_size() - 1);
  if (job->has_progress()) TrimForRow(job->mutable_progress());
  if (job->has_result()) {
    job->mutable_result()->clear_artifacts();
    job->mutable_result()->clear_samples();
    job->mutable_result()->clear_documents();
    KeepValues(job->mutable_result()->mutable_values());
  }
}

void TrimForPage(v1::Job* job) {
  for (auto& [name, text] : *job->mutable_result()->mutable_documents()) text.clear();
  if (job->result().ByteSizeLong() == 0) job->clear_result();
  job->clear_generations();  // a document of their own
}

std::string JobJson(const v1::Job& job) {
  return Proto(job);
}

std::string JobPageJson(uint64_t revision, const v1::Job& job) {
  return absl::StrCat("{\"revision\":\"", revision, "\",\"job\":", Proto(job), "}");
}

std::string ListJson(const v1::ListResponse& list) {
  return Proto(list);
}

std::string ProgressJson(const v1::ProgressEvent& event) {
  return Proto(event);
}

// ---- the queue ----

QueueView CollectQueue(const Core& core, size_t limit, Now now) {
  QueueView queue{.revision = core.revision(), .total = core.waiting_count(), .jobs = {}};
  const auto capacities = core.Capacities();
  for (const std::string& uid : core.Waiting(limit)) {
    queue.jobs.push_back(core.View(uid, now, capacities));
    TrimForRow(&queue.jobs.back());
  }
  return queue;
}

std::string QueueJson(const QueueView& queue) {
  return absl::StrCat("{\"revision\":\"", queue.revision, "\",\"total\":", queue.total,
                      ",\"jobs\":", Array(queue.jobs, Proto), "}");
}

// ---- the cluster ----

OverviewView CollectOverview(const Core& core, const v1::ListWorkersResponse& workers, Now now) {
  OverviewView view;
  view.revision = core.revision();
  for (const auto& [key, count] : core.CountJobs()) view.jobs[std::get<0>(key)] += count;
  view.pending = core.CountPending(now);
  for (const v1::WorkerInfo& worker : workers.workers()) {
    ++view.workers[worker.state()];
    for (const v1::SlotInfo& slot : worker.slots()) ++view.slots[{slot.type(), slot.state()}];
  }
  return view;
}

std::string OverviewJson(const OverviewView& overview, const v1::ServerInfo& info) {
  std::map<v1::SlotType, std::map<v1::SlotState, int>> by_type;
  for (const auto& [key, count] : overview.slots) by_type[key.first][key.second] = count;
  std::vector<std::string> slots;
  for (const auto& [type, counts] : by_type) {
    slots.push_back(absl::StrCat(JsonString(ShortName(type)), ":", Counts(counts)));
  }
  return absl::StrCat("{\"version\":", JsonString(info.version()), ",\"leaderEpoch\":\"", info.leader_epoch(),
                      "\",\"startTime\":", Proto(info.start_time()), ",\"revision\":\"", overview.revision,
                      "\",\"jobs\":", Counts(overview.jobs), ",\"pending\":", Counts(overview.pending),
                      ",\"workers\":", Counts(overview.workers), ",\"slots\":{", absl::StrJoin(slots, ","), "}}");
}

std::string WorkersJson(uint64_t revision, const v1::ListWorkersResponse& all, size_t offset, size_t limit) {
  const auto rank = [](const v1::WorkerInfo& worker) {
    if (worker.state() != v1::WORKER_STATE_READY) return 0;
    const bool is_unhealthy = std::any_of(worker.slots().begin(), worker.slots().end(), [](const v1::SlotInfo& slot) {
      return slot.state() == v1::SLOT_STATE_UNHEALTHY || slot.state() == v1::SLOT_STATE_UNREACHABLE;
    });
    return is_unhealthy ? 1 : 2;
  };
  std::vector<std::pair<int, const v1::WorkerInfo*>> order;
  for (const v1::WorkerInfo& worker : all.workers()) order.emplace_back(rank(worker), &worker);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : a.second->worker_id() < b.second->worker_id();
  });
  const size_t begin = std::min(offset, order.size());
  const size_t end = begin + std::min(limit, order.size() - begin);
  std::vector<std::string> workers;
  for (size_t i = begin; i < end; ++i) workers.push_back(Proto(*order[i].second));
  return absl::StrCat("{\"revision\":\"", revision, "\",\"total\":", order.size(), ",\"workers\":[",
                      absl::StrJoin(workers, ","), "]}");
}

// ---- numbers ----

std::string MetricsJson(const std::vector<v1::MetricPoint>& points, const std::vector<std::string>& wanted) {
  std::set<std::string> names;
  for (const v1::MetricPoint& point : points) {
    for (const auto& [name, value] : point.values()) names.insert(name);
  }
  std::set<std::string> chosen(names);
  if (!wanted.empty()) {
    const std::set<std::string> asked(wanted.begin(), wanted.end());
    std::erase_if(chosen, [&](const std::string& name) { return !asked.contains(name); });
  }
  std::vector<std::string> columns;
  for (const std::string& name : chosen) {
    columns.push_back(absl::StrCat(JsonString(name), ":", Array(points, [&](const v1::MetricPoint& point) {
                                     const auto value = point.values().find(name);
                                     return value == point.values().end() ? std::string("null")
                                                                          : JsonNumber(value->second);
                                   })));
  }
  const auto step = [](const v1::MetricPoint& point) { return absl::StrCat(point.step()); };
  const auto attempt = [](const v1::MetricPoint& point) { return absl::StrCat(point.attempt()); };
  const auto time = [](const v1::MetricPoint& point) {
    return absl::StrCat(absl::ToUnixMillis(FromProto(point.time())));
  };
  return absl::StrCat("{\"names\":", Array(names, [](const std::string& name) { return JsonString(name); }),
                      ",\"steps\":", Array(points, step), ",\"attempts\":", Array(points, attempt),
                      ",\"times\":", Array(points, time), ",\"values\":{", absl::StrJoin(columns, ","), "}}");
}

// ---- searches ----

GenerationsView CollectGenerations(const Core& core, const v1::Job& parent, int64_t from, int budget) {
  GenerationsView view;
  for (const v1::GenerationSummary& summary : parent.generations()) {
    if (summary.number() < from) continue;
    if (budget <= 0) {
      view.next = summary.number();
      break;
    }
    GenerationView generation{.summary = summary, .lowest = {}};
    const std::vector<std::string>* trials = core.TrialsOf(parent.uid(), summary.number());
    for (const std::string& uid : trials == nullptr ? std::vector<std::string>() : *trials) {
      --budget;
      const v1::Job& trial = core.Record(uid)->job();
      if (trial.state() != v1::JOB_STATE_SUCCEEDED) continue;
      for (const auto& [name, value] : trial.result().values()) {
        if (!std::isfinite(value)) continue;
        const auto [it, is_new] = generation.lowest.emplace(name, value);
        if (!is_new) it->second = std::min(it->second, value);
        if (generation.lowest.size() > kScoreNames) generation.lowest.erase(std::prev(generation.lowest.end()));
      }
    }
    view.generations.push_back(std::move(generation));
  }
  return view;
}

std::string GenerationsJson(const GenerationsView& view) {
  const auto generation = [](const GenerationView& one) {
    const auto score = [](const auto& pair) {
      return absl::StrCat(JsonString(pair.first), ":", JsonNumber(pair.second));
    };
    std::string lowest = Array(one.lowest, score);
    lowest.front() = '{';
    lowest.back() = '}';
    return absl::StrCat("{\"summary\":", Proto(one.summary), ",\"lowest\":", lowest, "}");
  };
  return absl::StrCat("{\"generations\":", Array(view.generations, generation), ",\"next\":", view.next, "}");
}

std::vector<v1::Job> CollectTrials(const Core& core, const std::string& parent_uid, int64_t generation, size_t first,
                                   size_t limit, Now now, size_t* total) {
  std::vector<v1::Job> trials;
  const std::vector<std::string>* uids = core.TrialsOf(parent_uid, generation);
  *total = uids == nullptr ? 0 : uids->size();
  const auto capacities = core.Capacities();
  for (size_t i = first; i < *total && trials.size() < limit; ++i) {
    trials.push_back(core.View((*uids)[i], now, capacities));
    TrimForRow(&trials.back());
  }
  return trials;
}

std::string TrialsJson(size_t total, const std::vector<v1::Job>& trials) {
  return absl::StrCat("{\"total\":", total, ",\"jobs\":", Array(trials, Proto), "}");
}

// ---- logs ----

std::string LogJson(const LogTail& tail) {
  return absl::StrCat("{\"size\":\"", tail.size, "\",\"ended\":", tail.has_ended ? "true" : "false",
                      ",\"nextOffset\":\"", tail.next_offset, "\",\"frames\":", Array(tail.frames, Proto), "}");
}

}  // namespace trainyard::coordinator
