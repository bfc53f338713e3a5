// The core under random faults, with a virtual clock and one seed a run: lost sessions, crashes of the coordinator
// before and after a commit, of daemons and of hosts, pauses longer than a lease, repeated reports and submits. The
// rules of the store (memory_records.h) hold I3, I4, I5, I8, I16; the world below holds I1, I6, I7, I9, I11 and I18;
// at the end faults stop and every job must end (I2). Two of the jobs are searches that ask for generations of trials:
// every outcome that any attempt is told is the same for ever, and a search that nobody interfered with ends with the
// winner that follows from its seed alone (I23). A failing seed replays exactly:  --seed=N
#include <algorithm>
#include <cstdlib>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "coordinator/core/core.h"
#include "coordinator/core/testing/memory_records.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "coordinator/core/trial_names.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace trainyard::coordinator {
namespace {

constexpr absl::Duration kStep = absl::Milliseconds(500);
constexpr int kFaultySteps = 1500;
constexpr int kCalmSteps = 12'000;  // 100 minutes of virtual time for what is left
constexpr int kWorkers = 3;
constexpr int kSlots = 2;
constexpr int kJobs = 6;
constexpr int kDriverSlots = 1;
constexpr int kGenerations = 3;
constexpr int kTrials = 3;
constexpr int kMaxParallel = 2;

int first_seed = 1;
int seeds = 300;
int searches_compared = 0;  // with what follows from their seeds
int workers_forgotten = 0;

// A rank's processes on a slot. Slots are checked here, by the worker, independently of what the coordinator believes.
struct SimTask {
  v1::AttemptRef ref;
  std::vector<v1::RankAssignment> ranks;
  v1::TaskState state = v1::TASK_STATE_PREPARING;
  bool succeeded = false;
  int exit_code = 0;
  int64_t first_step = 0;
  int steps_done = 0;
  int stop_in = -1;  // simulation steps until a stop has taken effect
  uint64_t sequence = 0, acknowledged = 0;
  uint64_t seed = 0;
  int64_t steps = 0;
  // Of a search.
  bool is_search = false;
  int generation = 1;
  int64_t winner = 0;          // of the generation before
  uint64_t asked_session = 0;  // in which the generation was asked for
  std::map<int, v1::TrialOutcome> outcomes = {};
};

bool IsSearch(const v1::JobSpec& spec) {
  return spec.has_prune_search();
}

// What a trial's training comes to.
int64_t ScoreOf(uint64_t seed, int64_t steps) {
  return static_cast<int64_t>((seed ^ static_cast<uint64_t>(steps * 7919)) % 1000);
}

// Steps of a trial follow from the winner before, so that a search that was told anything else asks for other specs.
int64_t StepsOf(int64_t winner, int index) {
  return 10 + winner * kTrials + index;
}

// The winner of the last generation, if all trials succeed.
int64_t ExpectedWinner(uint64_t seed) {
  int64_t winner = 0;
  for (int generation = 1; generation <= kGenerations; ++generation) {
    int64_t best = -1;
    for (int i = 0; i < kTrials; ++i) {
      best = std::max(best, ScoreOf(TrialSeed(seed, generation, i), StepsOf(winner, i)));
    }
    winner = best;
  }
  return winner;
}

v1::JobSpec SimSpec(const char* kind) {
  v1::JobSpec spec;
  TY_CHECK(google::protobuf::TextFormat::ParseFromString(
      absl::StrCat(R"(model { preset: "llama-1m" } data { path: "d" sequence_length: 64 }
             retry { no_progress_limit: 1000 max_user_failures: 1000 backoff_maximum { seconds: 20 } }
             stop_grace { seconds: 5 } )",
                   kind),
      &spec));
  return spec;
}

struct SimWorker {
  std::string id;
  int64_t start_count = 1;
  std::map<uint64_t, SimTask> tasks;  // by fence; on disk, so they survive the daemon
  uint64_t max_fence = 0, max_epoch = 0;
  uint64_t session = 0;
  int away = 0;  // steps until the host is back from a partition, pause or reboot
  std::deque<v1::CoordinatorMessage> inbox;
};

class World {
 public:
  explicit World(uint64_t seed) : random_(seed) {
    now_ = {absl::FromUnixSeconds(1'700'000'000), absl::Seconds(1000)};
    for (int i = 0; i < kWorkers; ++i) workers_.emplace_back().id = absl::StrCat("worker-", i);
    StartCoordinator();
  }

  void Run() {
    for (int step = 0; step < kFaultySteps; ++step) Step(/*faults=*/true);
    for (SimWorker& worker : workers_) worker.away = std::min(worker.away, 1);
    for (int step = 0; step < kCalmSteps && !AllEnded(); ++step) Step(/*faults=*/false);
    ASSERT_EQ(submitted_, kJobs);
    for (const auto& [uid, record] : records_.jobs()) {
      ASSERT_TRUE(IsTerminal(record.job().state())) << record.ShortDebugString();  // I2
      if (cancelled_.contains(uid)) {
        // Or the work had ended before the stop came through.
        ASSERT_TRUE(record.job().state() == v1::JOB_STATE_CANCELLED || record.job().state() == v1::JOB_STATE_SUCCEEDED)
            << record.ShortDebugString();
      }
    }
    CheckSearches();
    for (int step = 0; step < 400; ++step) Step(/*faults=*/false);  // stop_grace and more
    for (const SimWorker& worker : workers_) {
      for (const auto& [fence, task] : worker.tasks) ASSERT_EQ(task.state, v1::TASK_STATE_EXITED);  // I18
    }
    ASSERT_TRUE(records_.held().empty());
  }

 private:
  bool Chance(double probability) { return std::uniform_real_distribution<double>(0, 1)(random_) < probability; }
  int Random(int below) { return std::uniform_int_distribution<int>(0, below - 1)(random_); }

  void StartCoordinator() {
    core_ = std::make_unique<Core>(Timing(), records_.Start(), now_);
    for (SimWorker& worker : workers_) {
      worker.session = 0;
      worker.inbox.clear();
    }
  }

  // Commits and delivers, unless the coordinator dies before or after the commit.
  void Finish(Effects effects, bool faults) {
    if (faults && Chance(0.002)) return StartCoordinator();
    CheckCheckpoints(effects);
    records_.Commit(effects.writes);
    if (faults && Chance(0.002)) return StartCoordinator();
    for (const Push& push : effects.pushes) {
      for (SimWorker& worker : workers_) {
        if (worker.session == push.session) worker.inbox.push_back(push.message);
      }
    }
    for (const CloseSession& close : effects.closes) {
      for (SimWorker& worker : workers_) {
        if (worker.session == close.session) worker.session = 0;
      }
    }
    EXPECT_EQ(effects.invariant_violations, 0);
  }

  // I7: what a checkpoint's answer grants, the live attempt asked for.
  void CheckCheckpoints(const Effects& effects) {
    for (const Push& push : effects.pushes) {
      if (!push.message.has_checkpoint_ack() || push.message.checkpoint_ack().code() != 0) continue;
      const v1::AttemptRef& ref = push.message.checkpoint_ack().ref();
      TY_CHECK(records_.IsLive(ref.job_uid(), ref.fence()));
    }
  }

  template <typename Call>
  void Ask(bool faults, const Call& call) {
    Effects effects;
    call(*core_, &effects);
    Finish(std::move(effects), faults);
  }

  void Step(bool faults) {
    now_.mono += kStep;
    now_.wall += kStep;
    if (faults && Chance(0.002)) now_.wall += absl::Minutes(Random(120) - 60);  // I20
    if (faults && Chance(0.003)) StartCoordinator();
    ActAsUser(faults);
    for (SimWorker& worker : workers_) StepWorker(worker, faults);
    Ask(faults, [&](Core& core, Effects* effects) { core.Tick(now_, effects); });
    Ask(faults, [&](Core& core, Effects* effects) { core.Schedule(now_, effects); });
    CheckSlots();
  }

  void ActAsUser(bool faults) {
    if (submitted_ < kJobs && (Chance(0.02) || !faults)) {
      v1::SubmitRequest request;
      const bool is_search = submitted_ % 3 == 1;
      *request.mutable_spec() = SimSpec(is_search ? "prune_search {}" : "training { steps: 10 } pretrain {}");
      request.set_request_id(absl::StrCat("request-", submitted_));
      request.mutable_spec()->set_name(absl::StrCat("job-", submitted_));
      const int ranks = 1 + submitted_ % (kWorkers * kSlots);
      request.mutable_spec()->mutable_world()->set_min(ranks);
      request.mutable_spec()->mutable_world()->set_max(ranks);
      const std::string uid = absl::StrCat("uid-", submitted_, "-", Random(1'000'000));
      // Repeated until the answer has been seen: one job at most (I3).
      bool answered = false;
      Ask(faults, [&](Core& core, Effects* effects) {
        answered = core.Submit(request, uid, now_, effects).ok() && Chance(0.7);
      });
      const auto jobs = std::count_if(records_.jobs().begin(), records_.jobs().end(),
                                      [](const auto& job) { return job.second.job().parent_uid().empty(); });
      if (answered && jobs == submitted_ + 1) ++submitted_;
      TY_CHECK_LE(jobs, submitted_ + 1);
    }
    if (!faults) {
      for (const auto& [uid, record] : records_.jobs()) {
        const v1::Job& job = record.job();
        const bool is_suspended = job.state() == v1::JOB_STATE_SUSPENDED ||
                                  (job.stop_reason() == v1::STOP_REASON_SUSPEND && !record.resume_when_stopped());
        if (!is_suspended) continue;
        v1::JobActionRequest request;
        request.set_job(uid);
        Ask(faults, [&](Core& core, Effects* effects) { TY_CHECK_OK(core.Resume(request, now_, effects)); });
        return;
      }
    }
    // An operator gives up a worker; some come back all the same, with what they still run.
    if (faults && Chance(0.02)) {
      const std::string id = workers_[static_cast<size_t>(Random(kWorkers))].id;
      Ask(faults, [&](Core& core, Effects* effects) {
        if (core.ForgetWorker(id, now_, effects).ok()) ++workers_forgotten;
      });
    }
    if (!faults || records_.jobs().empty() || !Chance(0.01)) return;
    const auto& [uid, record] = *std::next(records_.jobs().begin(), Random(static_cast<int>(records_.jobs().size())));
    v1::JobActionRequest request;
    request.set_job(uid);
    const int action = Random(10);
    absl::StatusOr<std::string> answer = absl::UnknownError("");
    const std::string target = uid;
    Ask(faults, [&](Core& core, Effects* effects) {
      answer = action == 0   ? core.Cancel(request, now_, effects)
               : action <= 3 ? core.Suspend(request, now_, effects)
                             : core.Resume(request, now_, effects);
    });
    // Acknowledged only if it was committed.
    const auto now = records_.jobs().find(target);
    const bool is_cancelled = now->second.job().state() == v1::JOB_STATE_CANCELLED ||
                              now->second.job().stop_reason() == v1::STOP_REASON_CANCEL;
    if (action == 0 && answer.ok() && is_cancelled) cancelled_.insert(target);
  }

  v1::TaskReport ReportOf(const SimTask& task) {
    v1::TaskReport report;
    *report.mutable_ref() = task.ref;
    report.set_sequence(task.sequence);
    report.set_state(task.state);
    for (const v1::RankAssignment& assignment : task.ranks) {
      v1::RankStatus& rank = *report.add_ranks();
      rank.set_rank(assignment.rank());
      rank.set_slot(assignment.slot());
      rank.set_state(task.state);
      rank.set_comm_address("x");
      if (task.state != v1::TASK_STATE_EXITED) continue;
      rank.set_succeeded(task.succeeded);
      rank.mutable_exit()->set_exit_code(task.exit_code);
    }
    if (task.state == v1::TASK_STATE_EXITED && task.succeeded) {
      const int64_t score = task.is_search ? task.winner : ScoreOf(task.seed, task.steps);
      (*report.mutable_result()->mutable_values())["score"] = static_cast<double>(score);
    }
    return report;
  }

  void Change(SimTask& task, v1::TaskState state) {
    task.state = state;
    ++task.sequence;
  }

  void StepWorker(SimWorker& worker, bool faults) {
    if (worker.away > 0) {
      if (--worker.away > 0) {
        if (!is_frozen_[worker.id]) Work(worker, faults);  // partitioned: its ranks go on
        return;
      }
    }
    if (faults && Chance(0.002)) {  // partition or pause, often longer than the lease of 15 s
      worker.away = 1 + Random(100);
      is_frozen_[worker.id] = Chance(0.5);
      if (Chance(0.5)) Drop(worker, faults);
      return;
    }
    if (faults && Chance(0.002)) {  // the daemon dies; with the host its processes too, without a trace
      Drop(worker, faults);
      ++worker.start_count;
      if (Chance(0.5)) worker.tasks.clear();
      worker.away = 1 + Random(60);
      return;
    }
    if (faults && Chance(0.005)) Drop(worker, faults);
    if (worker.session == 0) return Register(worker, faults);
    Receive(worker);
    Work(worker, faults);
    if (worker.session != 0 && !core_->Heartbeat(worker.session, now_)) worker.session = 0;
    if (worker.session == 0) return;
    for (auto& [fence, task] : worker.tasks) {
      const bool repeats = faults && Chance(0.05);
      if (task.acknowledged == task.sequence && !repeats) continue;
      const uint64_t session = worker.session;
      Ask(faults, [&](Core& core, Effects* effects) { core.Report(session, ReportOf(task), now_, effects); });
      if (worker.session == 0) return;
    }
  }

  void Drop(SimWorker& worker, bool faults) {
    if (worker.session != 0) core_->Disconnect(worker.session);
    worker.session = 0;
    worker.inbox.clear();  // what was under way is lost
  }

  void Register(SimWorker& worker, bool faults) {
    v1::Register message;
    message.set_worker_id(worker.id);
    message.set_start_count(worker.start_count);
    message.set_incarnation(absl::StrCat(worker.start_count));
    message.set_max_fence(worker.max_fence);
    message.set_max_leader_epoch(worker.max_epoch);
    for (int i = 0; i < kSlots + kDriverSlots; ++i) {
      v1::WorkerSlot& slot = *message.add_slots();
      slot.set_index(i);
      slot.set_type(i < kSlots ? v1::SLOT_TYPE_CPU : v1::SLOT_TYPE_DRIVER);
      slot.set_healthy(true);
    }
    for (const auto& [fence, task] : worker.tasks) *message.add_tasks() = ReportOf(task);
    worker.inbox.clear();  // a daemon reads nothing of an old stream once it has opened a new one
    worker.session = ++last_session_;
    const uint64_t session = worker.session;
    Ask(faults, [&](Core& core, Effects* effects) { TY_CHECK_OK(core.Register(session, message, now_, effects)); });
  }

  void Receive(SimWorker& worker) {
    while (!worker.inbox.empty()) {
      const v1::CoordinatorMessage message = std::move(worker.inbox.front());
      worker.inbox.pop_front();
      if (message.has_registered()) {
        TY_CHECK_GE(message.registered().leader_epoch(), worker.max_epoch);  // I6
        worker.max_epoch = message.registered().leader_epoch();
        for (const v1::TaskDecision& decision : message.registered().decisions()) {
          if (!decision.keep()) Stop(worker, decision.ref().fence());
        }
      } else if (message.has_assign()) {
        Assign(worker, message.assign());
      } else if (message.has_start()) {
        CheckBarrier(message.start().ref());
        const auto task = worker.tasks.find(message.start().ref().fence());
        if (task != worker.tasks.end() && task->second.state == v1::TASK_STATE_READY) {
          Change(task->second, v1::TASK_STATE_RUNNING);
        }
      } else if (message.has_stop()) {
        Stop(worker, message.stop().ref().fence());
      } else if (message.has_trials_ack()) {
        const auto task = worker.tasks.find(message.trials_ack().ref().fence());
        if (task != worker.tasks.end()) TakeOutcomes(task->second, message.trials_ack().outcomes());
      } else if (message.has_report_ack()) {
        const auto task = worker.tasks.find(message.report_ack().ref().fence());
        if (task == worker.tasks.end()) continue;
        task->second.acknowledged = std::max(task->second.acknowledged, message.report_ack().sequence());
        const bool is_done =
            task->second.state == v1::TASK_STATE_EXITED && task->second.acknowledged == task->second.sequence;
        if (is_done) worker.tasks.erase(task);
      }
    }
  }

  void Assign(SimWorker& worker, const v1::Assign& assign) {
    const uint64_t fence = assign.ref().fence();
    if (worker.tasks.contains(fence)) return;
    TY_CHECK_GT(fence, worker.max_fence);  // I6: nothing older is ever asked for
    worker.max_fence = fence;
    for (const v1::RankAssignment& rank : assign.ranks()) {
      for (const auto& [other, task] : worker.tasks) {
        if (task.state == v1::TASK_STATE_EXITED) continue;
        for (const v1::RankAssignment& taken : task.ranks) TY_CHECK_NE(taken.slot(), rank.slot());  // I1
      }
    }
    SimTask& task = worker.tasks[fence];
    task.ref = assign.ref();
    task.ranks.assign(assign.ranks().begin(), assign.ranks().end());
    task.sequence = 1;
    task.seed = assign.spec().seed();
    task.steps = assign.spec().training().steps();
    task.is_search = IsSearch(assign.spec());
    // I16: it resumes exactly at the committed step.
    task.first_step = assign.checkpoints_size() > 0 ? assign.checkpoints(0).step() : 0;
    const JobRecord& record = records_.jobs().at(assign.ref().job_uid());
    if (records_.IsLive(assign.ref().job_uid(), fence) && record.job().state() == v1::JOB_STATE_ADMITTED) {
      TY_CHECK_EQ(task.first_step, record.job().committed_step());
    }
  }

  // I9: nobody starts before all tasks of the gang are ready.
  void CheckBarrier(const v1::AttemptRef& ref) {
    const JobRecord& record = records_.jobs().at(ref.job_uid());
    if (!records_.IsLive(ref.job_uid(), ref.fence())) return;
    int ranks = 0;
    for (const TaskRecord& task : record.tasks()) {
      if (task.fence() != ref.fence()) continue;
      TY_CHECK_GE(task.state(), v1::TASK_STATE_READY);
      ranks += task.ranks_size();
    }
    // A search has one rank, whatever its spec says, which is about its trials; and those of this one say nothing.
    const v1::JobSpec& spec = record.job().spec();
    TY_CHECK_EQ(ranks, IsSearch(spec) ? 1 : std::max(1, spec.world().max()));
  }

  void Stop(SimWorker& worker, uint64_t fence) {
    const auto task = worker.tasks.find(fence);
    if (task == worker.tasks.end() || task->second.state == v1::TASK_STATE_EXITED) return;
    if (task->second.stop_in < 0) task->second.stop_in = Random(8);
  }

  void Work(SimWorker& worker, bool faults) {
    for (auto& [fence, task] : worker.tasks) {
      if (task.state == v1::TASK_STATE_EXITED) continue;
      if (task.stop_in == 0) {
        Change(task, v1::TASK_STATE_EXITED);
        continue;
      }
      if (task.stop_in > 0) --task.stop_in;
      if (task.state == v1::TASK_STATE_PREPARING && Chance(0.3)) Change(task, v1::TASK_STATE_READY);
      if (faults && Chance(0.003)) {
        task.exit_code = Chance(0.5) ? 75 : 1;
        Change(task, v1::TASK_STATE_EXITED);
        continue;
      }
      if (task.state != v1::TASK_STATE_RUNNING || task.stop_in >= 0) continue;
      if (task.is_search) {
        Search(worker, task, faults);
        continue;
      }
      ++task.steps_done;
      const bool has_rank_0 = task.ranks.front().rank() == 0;
      if (has_rank_0 && worker.session != 0 && worker.away == 0 && task.steps_done % 10 == 0) {
        v1::CommitCheckpoint message;
        *message.mutable_ref() = task.ref;
        message.mutable_manifest()->set_step(task.first_step + task.steps_done);
        message.mutable_manifest()->set_directory(absl::StrCat("fence-", fence));
        const uint64_t session = worker.session;
        Ask(faults, [&](Core& core, Effects* effects) { core.CommitCheckpoint(session, message, now_, effects); });
      }
      if (task.steps_done >= 60) {
        task.succeeded = true;
        Change(task, v1::TASK_STATE_EXITED);
      }
    }
  }

  void Search(SimWorker& worker, SimTask& task, bool faults) {
    if (task.generation > kGenerations) {
      task.succeeded = true;
      Change(task, v1::TASK_STATE_EXITED);
      return;
    }
    const bool is_heard = worker.session != 0 && worker.away == 0;
    const bool repeats = faults && Chance(0.05);
    if (!is_heard || (task.asked_session == worker.session && !repeats)) return;
    v1::RunTrials message;
    *message.mutable_ref() = task.ref;
    message.mutable_generation()->set_number(task.generation);
    message.mutable_generation()->set_max_parallel(kMaxParallel);
    for (int i = 0; i < kTrials; ++i) {
      *message.mutable_generation()->add_specs() =
          SimSpec(absl::StrCat("training { steps: ", StepsOf(task.winner, i), " } pretrain {}").c_str());
    }
    task.asked_session = worker.session;
    const uint64_t session = worker.session;
    Ask(faults, [&](Core& core, Effects* effects) { core.RunTrials(session, message, now_, effects); });
  }

  void TakeOutcomes(SimTask& task, const v1::TrialOutcomes& outcomes) {
    if (outcomes.code() != 0) {
      TY_CHECK(!records_.IsLive(task.ref.job_uid(), task.ref.fence()));  // the only refusal that this search can meet
      return;
    }
    for (const v1::TrialOutcome& outcome : outcomes.outcomes()) {
      TY_CHECK(IsTerminal(outcome.state()));
      const auto place = std::make_tuple(task.ref.job_uid(), outcomes.generation(), outcome.index());
      TY_CHECK_EQ(records_.trials().at(place), outcome.job_uid());
      // I23: whoever is told, and whenever, it is the same.
      const std::string bytes = outcome.SerializeAsString();
      TY_CHECK_EQ(accepted_.emplace(place, bytes).first->second, bytes);
      if (outcome.state() == v1::JOB_STATE_SUCCEEDED) TY_CHECK(outcome.result().values().contains("score"));
      if (outcomes.generation() == task.generation) task.outcomes[outcome.index()] = outcome;
    }
    if (outcomes.generation() != task.generation || !outcomes.done()) return;
    TY_CHECK_EQ(task.outcomes.size(), static_cast<size_t>(kTrials));
    task.winner = 0;
    for (const auto& [index, outcome] : task.outcomes) {
      if (outcome.state() != v1::JOB_STATE_SUCCEEDED) continue;  // a user took it away
      task.winner = std::max(task.winner, static_cast<int64_t>(outcome.result().values().at("score")));
    }
    task.outcomes.clear();
    ++task.generation;
    task.asked_session = 0;
  }

  void CheckSearches() {
    std::map<std::string, int> trials, taken_away;
    for (const auto& [place, uid] : records_.trials()) {
      ++trials[std::get<0>(place)];
      if (records_.jobs().at(uid).job().state() != v1::JOB_STATE_SUCCEEDED) ++taken_away[std::get<0>(place)];
    }
    for (const auto& [uid, record] : records_.jobs()) {
      const v1::Job& job = record.job();
      if (!IsSearch(job.spec()) || job.state() != v1::JOB_STATE_SUCCEEDED) continue;
      EXPECT_EQ(trials[uid], kGenerations * kTrials);
      if (taken_away[uid] > 0) continue;
      ++searches_compared;
      EXPECT_EQ(job.result().values().at("score"), static_cast<double>(ExpectedWinner(job.spec().seed())));
    }
  }

  // I11, and what the core believes is what it committed.
  void CheckSlots() {
    const v1::ListWorkersResponse response = core_->Workers();
    size_t held = 0;
    for (const v1::WorkerInfo& worker : response.workers()) {
      for (const v1::SlotInfo& slot : worker.slots()) {
        TY_CHECK_NE(slot.state(), v1::SLOT_STATE_UNSPECIFIED);
        const bool is_held = records_.held().contains({worker.worker_id(), slot.index()});
        if (is_held) ++held;
        if (slot.state() == v1::SLOT_STATE_FREE) TY_CHECK(!is_held);
      }
    }
    TY_CHECK_EQ(held, records_.held().size());
  }

  bool AllEnded() const {
    return submitted_ == kJobs && std::all_of(records_.jobs().begin(), records_.jobs().end(),
                                              [](const auto& job) { return IsTerminal(job.second.job().state()); });
  }

  std::mt19937_64 random_;
  Now now_;
  MemoryRecords records_;
  std::unique_ptr<Core> core_;
  std::vector<SimWorker> workers_;
  std::map<std::string, bool> is_frozen_;
  std::set<std::string> cancelled_;
  std::map<std::tuple<std::string, int64_t, int>, std::string> accepted_;  // what a search was told of a trial
  uint64_t last_session_ = 0;
  int submitted_ = 0;
};

TEST(SimulationTest, InvariantsHoldUnderRandomFaults) {
  for (int seed = first_seed; seed < first_seed + seeds; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::fprintf(stderr, "\rseed %d", seed);  // a broken TY_CHECK aborts: the last seed is the one to replay
    World world(static_cast<uint64_t>(seed));
    world.Run();
    if (HasFatalFailure() || HasNonfatalFailure()) return;
  }
  // Most are left alone by the users of most worlds.
  EXPECT_TRUE(seeds < 50 || searches_compared > seeds / 2)
      << searches_compared << " searches of " << seeds << " worlds";
  EXPECT_TRUE(seeds < 50 || workers_forgotten > seeds / 10) << workers_forgotten;
}

}  // namespace
}  // namespace trainyard::coordinator

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    using namespace trainyard::coordinator;  // NOLINT: the two flags of this file
    if (absl::ConsumePrefix(&argument, "--seed=")) {
      if (!absl::SimpleAtoi(argument, &first_seed)) return 2;
      seeds = 1;
    } else if (absl::ConsumePrefix(&argument, "--seeds=")) {
      if (!absl::SimpleAtoi(argument, &seeds)) return 2;
    }
  }
  return RUN_ALL_TESTS();
}
