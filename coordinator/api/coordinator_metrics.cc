#include "coordinator/api/coordinator_metrics.h"

#include <google/protobuf/descriptor.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/version.h"
#include "coordinator/core/transitions.h"

namespace trainyard::coordinator {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

// Exists without jobs too.
constexpr char kDefaultQueue[] = "default";
constexpr char kOtherQueues[] = "other";

const Histogram::BucketBoundaries kSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
const Histogram::BucketBoundaries kPassSeconds = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                                  0.025,  0.05,    0.1,    0.25,  0.5,    1};
const Histogram::BucketBoundaries kRecoverySeconds = {0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 900, 3600};
const Histogram::BucketBoundaries kLongSeconds = {0.1, 1, 5, 15, 60, 300, 900, 3600, 14'400, 86'400};
const Histogram::BucketBoundaries kCounts = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000};

template <typename State>
std::string Label(State state) {
  return absl::AsciiStrToLower(ShortName(state));
}

// Reasons of transitions are ours (UPPER_SNAKE) except those that a rank reports: these become one.
std::string ReasonLabel(const std::string& reason) {
  static const auto* const kKnown = new std::set<std::string>{"SUBMIT",
                                                              "PLACED",
                                                              "ALL_READY",
                                                              "COMPLETED",
                                                              "CANCEL",
                                                              "SUSPEND",
                                                              "RESUME",
                                                              "PREEMPT",
                                                              "RESIZE",
                                                              "DEADLINE",
                                                              "DRAIN",
                                                              "QUEUE_DEADLINE",
                                                              "RANK_EXITED",
                                                              "WORKER_LOST",
                                                              "PREPARE_TIMEOUT",
                                                              "BARRIER_TIMEOUT",
                                                              "LOST_BY_WORKER",
                                                              "NO_PROGRESS",
                                                              "STOPPED",
                                                              "ACTIVE_DEADLINE",
                                                              "EXITED_UNREPORTED",
                                                              "DEPENDENCY_FAILED",
                                                              "ARTIFACT_MISSING"};
  return kKnown->contains(reason) ? absl::AsciiStrToLower(reason) : "rank_reported";
}

const char* NameOf(RecoveryPhase phase) {
  switch (phase) {
    case RecoveryPhase::kDetect:
      return "detect";
    case RecoveryPhase::kStop:
      return "stop";
    case RecoveryPhase::kPlace:
      return "place";
    case RecoveryPhase::kStart:
      return "start";
    case RecoveryPhase::kFirstStep:
      return "first_step";
  }
  TY_CHECK(false);
}

// (state, kind) -> the gauge of one queue.
using QueueGauges = std::map<std::pair<v1::JobState, std::string>, Gauge*>;

}  // namespace

struct CoordinatorMetrics::Families {
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();

  Family<Gauge>& G(const char* name, const char* help) {
    return BuildGauge().Name(absl::StrCat("trainyard_", name)).Help(help).Register(*registry);
  }
  Family<Counter>& C(const char* name, const char* help) {
    return BuildCounter().Name(absl::StrCat("trainyard_", name)).Help(help).Register(*registry);
  }
  Histogram& H(const char* name, const char* help, const Histogram::BucketBoundaries& buckets) {
    return BuildHistogram().Name(absl::StrCat("trainyard_", name)).Help(help).Register(*registry).Add({}, buckets);
  }

  Family<Gauge>& jobs = G("jobs", "Jobs by state, queue and kind.");
  Family<Counter>& transitions = C("job_transitions_total", "State changes of jobs.");
  Histogram& submit_seconds = H("submit_duration_seconds", "From a Submit call to its durable answer.", kSeconds);
  Histogram& queue_wait = H("queue_wait_seconds", "From submit to the first placement.", kLongSeconds);
  Family<Counter>& admissions =
      C("admission_attempts_total", "Jobs that lacked nothing but slots and were tried, by what came of it.");
  Histogram& pass_seconds =
      H("schedule_pass_duration_seconds", "One placement pass over the waiting jobs.", kPassSeconds);
  Family<Histogram>& recovery = BuildHistogram()
                                    .Name("trainyard_recovery_seconds")
                                    .Help("From a failure to the first new step, by phase; they do not overlap.")
                                    .Register(*registry);
  Family<Gauge>& pending = G("pending_jobs", "Jobs that wait, by reason.");
  Family<Gauge>& workers = G("workers", "Workers by state.");
  Family<Gauge>& slots = G("slots", "Slots by state and type.");
  Counter& lease_expirations = C("lease_expirations_total", "Leases of workers that ended.").Add({});
  Family<Counter>& attempts = C("attempts_total", "Ended attempts by result and failure class.");
  Counter& generations = C("generations_total", "Generations of trials that were committed.").Add({});
  Family<Counter>& trials = C("trials_total", "Ended trials by result.");
  Histogram& commit_seconds = H("store_commit_seconds", "Durable commits of the store.", kSeconds);
  Histogram& batch_size = H("store_batch_size", "Writes in one commit.", kCounts);
  Family<Counter>& store_errors = C("store_errors_total", "Commits that failed.");
  Gauge& writable = G("store_writable_ratio", "1 if changes can be stored, else 0.").Add({});
  Gauge& is_leader = G("is_leader", "1 on the coordinator that leads.").Add({});
  Gauge& leader_epoch = G("leader_epoch", "Grows with each start of a coordinator.").Add({});
  Gauge& watch_streams = G("watch_streams", "Open Watch calls.").Add({});
  Counter& watch_dropped = C("watch_dropped_total", "Watch calls cut off for being slow.").Add({});
  Gauge& build_info = G("build_info", "The release, as a label.").Add({{"version", kVersion}});
  Counter& violations = C("invariant_violations_total", "Broken invariants; must be 0.").Add({});

  Counter *placed, *not_enough_slots, *fragmented, *reserved, *held;
  std::map<RecoveryPhase, Histogram*> recovery_phases;

  Mutex mutex;
  std::map<std::string, QueueGauges> queues ABSL_GUARDED_BY(mutex);

  void SetJob(const std::string& queue, v1::JobState state, const std::string& kind, int add)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    Gauge*& gauge = queues[queue][{state, kind}];
    if (gauge == nullptr) gauge = &jobs.Add({{"state", Label(state)}, {"queue", queue}, {"kind", kind}});
    gauge->Increment(add);
  }
};

CoordinatorMetrics::CoordinatorMetrics(uint64_t leader_epoch) : families_(std::make_unique<Families>()) {
  Families& f = *families_;
  f.is_leader.Set(1);
  f.writable.Set(1);
  f.build_info.Set(1);
  f.leader_epoch.Set(static_cast<double>(leader_epoch));
  // Series with known labels exist from the start.
  for (int state = v1::WORKER_STATE_READY; state <= v1::WORKER_STATE_REFUSED; ++state) {
    f.workers.Add({{"state", Label(static_cast<v1::WorkerState>(state))}});
  }
  for (int state = v1::SLOT_STATE_FREE; state <= v1::SLOT_STATE_UNREACHABLE; ++state) {
    for (const v1::SlotType type : {v1::SLOT_TYPE_CPU, v1::SLOT_TYPE_GPU, v1::SLOT_TYPE_DRIVER}) {
      f.slots.Add({{"state", Label(static_cast<v1::SlotState>(state))}, {"type", Label(type)}});
    }
  }
  for (int code = v1::PendingReason::CODE_NOT_ENOUGH_SLOTS; code < v1::PendingReason::Code_ARRAYSIZE; ++code) {
    f.pending.Add({{"reason", Label(static_cast<v1::PendingReason::Code>(code))}});
  }
  for (const v1::JobState state : {v1::JOB_STATE_SUCCEEDED, v1::JOB_STATE_FAILED, v1::JOB_STATE_CANCELLED}) {
    f.trials.Add({{"result", Label(state)}});
  }
  const std::pair<v1::AttemptState, v1::FailureClass> ends[] = {
      {v1::ATTEMPT_STATE_SUCCEEDED, v1::FAILURE_CLASS_UNSPECIFIED},
      {v1::ATTEMPT_STATE_FAILED, v1::FAILURE_CLASS_INFRA},
      {v1::ATTEMPT_STATE_FAILED, v1::FAILURE_CLASS_USER},
      {v1::ATTEMPT_STATE_FAILED, v1::FAILURE_CLASS_PERMANENT},
      {v1::ATTEMPT_STATE_FAILED, v1::FAILURE_CLASS_CONTROL},
      {v1::ATTEMPT_STATE_STOPPED, v1::FAILURE_CLASS_CONTROL},
      {v1::ATTEMPT_STATE_STOPPED, v1::FAILURE_CLASS_USER},
      {v1::ATTEMPT_STATE_LOST, v1::FAILURE_CLASS_INFRA}};
  for (const auto& [state, failure_class] : ends) {
    f.attempts.Add({{"result", Label(state)}, {"class", Label(failure_class)}});
  }
  const auto admission = [&](const char* result) { return &f.admissions.Add({{"result", result}}); };
  f.placed = admission("placed");
  f.not_enough_slots = admission("not_enough_slots");
  f.fragmented = admission("fragmented");
  f.reserved = admission("reserved");
  f.held = admission("held");
  for (const RecoveryPhase phase : {RecoveryPhase::kDetect, RecoveryPhase::kStop, RecoveryPhase::kPlace,
                                    RecoveryPhase::kStart, RecoveryPhase::kFirstStep}) {
    f.recovery_phases[phase] = &f.recovery.Add({{"phase", NameOf(phase)}}, kRecoverySeconds);
  }
  {
    MutexLock lock(&f.mutex);
    const google::protobuf::OneofDescriptor& kinds = *v1::JobSpec::descriptor()->FindOneofByName("kind");
    for (int state = v1::JOB_STATE_QUEUED; state < v1::JobState_ARRAYSIZE; ++state) {
      for (int i = 0; i < kinds.field_count(); ++i) {
        f.SetJob(kDefaultQueue, static_cast<v1::JobState>(state), kinds.field(i)->name(), 0);
      }
    }
  }
  for (const char* code : {"full", "unavailable", "rule"}) f.store_errors.Add({{"error", code}});
}

CoordinatorMetrics::~CoordinatorMetrics() = default;

void CoordinatorMetrics::Count(const Effects& effects) {
  Families& f = *families_;
  for (const Transition& change : effects.transitions) {
    f.transitions.Add({{"from", Label(change.from)}, {"to", Label(change.to)}, {"reason", ReasonLabel(change.reason)}})
        .Increment();
  }
  for (const AttemptEnd& end : effects.attempt_ends) {
    f.attempts.Add({{"result", Label(end.state)}, {"class", Label(end.failure_class)}}).Increment();
  }
  for (const absl::Duration wait : effects.queue_waits) f.queue_wait.Observe(absl::ToDoubleSeconds(wait));
  for (const v1::JobState state : effects.trial_ends) f.trials.Add({{"result", Label(state)}}).Increment();
  for (const RecoveryTime& part : effects.recovery_times) {
    f.recovery_phases.at(part.phase)->Observe(absl::ToDoubleSeconds(part.time));
  }
  f.placed->Increment(effects.admissions.placed);
  f.not_enough_slots->Increment(effects.admissions.not_enough_slots);
  f.fragmented->Increment(effects.admissions.fragmented);
  f.reserved->Increment(effects.admissions.reserved);
  f.held->Increment(effects.admissions.held);
  if (effects.generations > 0) f.generations.Increment(effects.generations);
  if (effects.lease_expirations > 0) f.lease_expirations.Increment(effects.lease_expirations);
  if (effects.invariant_violations > 0) f.violations.Increment(effects.invariant_violations);
}

void CoordinatorMetrics::Commit(absl::Duration took, size_t writes, const absl::Status& status) {
  families_->commit_seconds.Observe(absl::ToDoubleSeconds(took));
  families_->batch_size.Observe(static_cast<double>(writes));
  if (status.ok()) return;
  const char* error = status.code() == absl::StatusCode::kResourceExhausted ? "full"
                      : status.code() == absl::StatusCode::kDataLoss        ? "rule"
                                                                            : "unavailable";
  families_->store_errors.Add({{"error", error}}).Increment();
  if (status.code() == absl::StatusCode::kDataLoss) families_->violations.Increment();
}

void CoordinatorMetrics::SchedulePass(absl::Duration took) {
  families_->pass_seconds.Observe(absl::ToDoubleSeconds(took));
}

void CoordinatorMetrics::Observe(const Core& core, Now now) {
  Families& f = *families_;
  {
    MutexLock lock(&f.mutex);
    std::set<std::string> alive = {kDefaultQueue};
    const auto counts = core.CountJobs();
    for (auto& [queue, gauges] : f.queues) {
      for (auto& [key, gauge] : gauges) gauge->Set(0);
    }
    // Queues that have series keep them before new ones get any.
    for (const auto& [key, count] : counts) {
      if (f.queues.contains(std::get<1>(key))) alive.insert(std::get<1>(key));
    }
    for (const auto& [key, count] : counts) {
      const auto& [state, queue, kind] = key;
      if (alive.size() < kMaxQueues) alive.insert(queue);
      const std::string label = alive.contains(queue) ? queue : kOtherQueues;
      alive.insert(label);
      f.SetJob(label, state, kind, count);
    }
    for (auto it = f.queues.begin(); it != f.queues.end();) {
      if (alive.contains(it->first)) {
        ++it;
        continue;
      }
      for (const auto& [key, gauge] : it->second) f.jobs.Remove(gauge);
      it = f.queues.erase(it);
    }
  }
  std::map<v1::WorkerState, int> workers;
  std::map<std::pair<v1::SlotState, v1::SlotType>, int> slots;
  const v1::ListWorkersResponse listed = core.Workers();
  for (const v1::WorkerInfo& worker : listed.workers()) {
    ++workers[worker.state()];
    for (const v1::SlotInfo& slot : worker.slots()) ++slots[{slot.state(), slot.type()}];
  }
  for (int state = v1::WORKER_STATE_READY; state <= v1::WORKER_STATE_REFUSED; ++state) {
    f.workers.Add({{"state", Label(static_cast<v1::WorkerState>(state))}})
        .Set(workers[static_cast<v1::WorkerState>(state)]);
  }
  for (int state = v1::SLOT_STATE_FREE; state <= v1::SLOT_STATE_UNREACHABLE; ++state) {
    for (const v1::SlotType type : {v1::SLOT_TYPE_CPU, v1::SLOT_TYPE_GPU, v1::SLOT_TYPE_DRIVER}) {
      f.slots.Add({{"state", Label(static_cast<v1::SlotState>(state))}, {"type", Label(type)}})
          .Set(slots[{static_cast<v1::SlotState>(state), type}]);
    }
  }
  auto pending = core.CountPending(now);
  for (int code = v1::PendingReason::CODE_NOT_ENOUGH_SLOTS; code < v1::PendingReason::Code_ARRAYSIZE; ++code) {
    f.pending.Add({{"reason", Label(static_cast<v1::PendingReason::Code>(code))}})
        .Set(pending[static_cast<v1::PendingReason::Code>(code)]);
  }
}

void CoordinatorMetrics::SetWatchers(int watchers, int64_t dropped) {
  families_->watch_streams.Set(watchers);
  const double more = static_cast<double>(dropped) - families_->watch_dropped.Value();
  if (more > 0) families_->watch_dropped.Increment(more);
}

void CoordinatorMetrics::SetWritable(bool writable) {
  families_->writable.Set(writable ? 1 : 0);
}

void CoordinatorMetrics::Submit(absl::Duration took) {
  families_->submit_seconds.Observe(absl::ToDoubleSeconds(took));
}

const std::shared_ptr<prometheus::Registry>& CoordinatorMetrics::registry() const {
  return families_->registry;
}

}  // namespace trainyard::coordinator
