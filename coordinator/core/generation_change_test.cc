// Scenario 13 of control-plane.md: 1,000 trials in four generations, each asked for by what the one before led to, and
// a coordinator that is killed at an input around a generation change: before its commit, or after it and before
// anything is sent. Every input near every change is tried. Each time every (generation, index) has exactly one result,
// no trial costs a second attempt, and the winner is that of the undisturbed run.
#include <algorithm>
#include <deque>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/core/core.h"
#include "coordinator/core/testing/memory_records.h"
#include "coordinator/core/transitions.h"
#include "coordinator/core/trial_names.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace trainyard::coordinator {
namespace {

constexpr int kGenerations = 4;
constexpr int kTrials = 250;
constexpr int kSlots = 50;
constexpr int kNear = 6;  // inputs before and after the one that asks for a generation

v1::JobSpec Spec(const std::string& kind) {
  v1::JobSpec spec;
  TY_CHECK(google::protobuf::TextFormat::ParseFromString(
      absl::StrCat(R"(model { preset: "llama-1m" } data { path: "d" sequence_length: 64 } )", kind), &spec));
  return spec;
}

struct Crash {
  int input = -1;
  bool is_after_commit = false;
};

class Search {
 public:
  explicit Search(const Crash& crash) : crash_(crash) {
    now_ = {absl::FromUnixSeconds(1'700'000'000), absl::Seconds(1000)};
    StartCoordinator();
    Register();
    v1::SubmitRequest request;
    *request.mutable_spec() = Spec("prune_search {}");
    request.mutable_spec()->set_name("search");
    request.mutable_spec()->set_seed(17);
    Ask([&](Effects* effects) { TY_CHECK_OK(core_->Submit(request, "uid-of-search", now_, effects).status()); });
  }

  // To the end of the search.
  void Run() {
    for (int step = 0; !has_ended_; ++step) {
      ASSERT_LT(step, 2000);
      now_.mono += absl::Milliseconds(500);
      now_.wall += absl::Milliseconds(500);
      if (session_ == 0) Register();
      Receive();
      Ask([&](Effects* effects) { core_->Tick(now_, effects); });
      Ask([&](Effects* effects) { core_->Schedule(now_, effects); });
      if (session_ != 0) core_->Heartbeat(session_, now_);
      Receive();
      AskForTrials();
      Report();
    }
  }

  // Which inputs asked for a generation that was new then.
  const std::vector<int>& changes() const { return changes_; }
  int64_t winner() const { return winner_; }
  const MemoryRecords& records() const { return records_; }

 private:
  struct Task {
    v1::AttemptRef ref;
    v1::RankAssignment rank;
    v1::TaskState state = v1::TASK_STATE_READY;
    bool is_reported = false;
    double score = 0;
    bool is_search = false;
  };

  void StartCoordinator() {
    core_ = std::make_unique<Core>(Timing(), records_.Start(), now_);
    session_ = 0;
    inbox_.clear();
    asked_session_ = 0;
  }

  template <typename Call>
  void Ask(const Call& call) {
    const int input = inputs_++;
    Effects effects;
    call(&effects);
    const bool dies = input == crash_.input;
    if (dies && !crash_.is_after_commit) return StartCoordinator();
    records_.Commit(effects.writes);
    if (dies) return StartCoordinator();
    for (Push& push : effects.pushes) {
      if (push.session == session_) inbox_.push_back(std::move(push.message));
    }
    TY_CHECK_EQ(effects.invariant_violations, 0);
  }

  void Register() {
    v1::Register message;
    message.set_worker_id("w");
    message.set_start_count(1);
    message.set_incarnation("1");
    for (int i = 0; i <= kSlots; ++i) {
      v1::WorkerSlot& slot = *message.add_slots();
      slot.set_index(i);
      slot.set_type(i < kSlots ? v1::SLOT_TYPE_CPU : v1::SLOT_TYPE_DRIVER);
      slot.set_healthy(true);
    }
    for (const auto& [fence, task] : tasks_) *message.add_tasks() = ReportOf(task);
    session_ = ++last_session_;
    Ask([&](Effects* effects) { TY_CHECK_OK(core_->Register(session_, message, now_, effects)); });
  }

  static v1::TaskReport ReportOf(const Task& task) {
    v1::TaskReport report;
    *report.mutable_ref() = task.ref;
    report.set_sequence(task.state);
    report.set_state(task.state);
    v1::RankStatus& rank = *report.add_ranks();
    rank.set_rank(task.rank.rank());
    rank.set_slot(task.rank.slot());
    rank.set_state(task.state);
    if (task.state != v1::TASK_STATE_EXITED) return report;
    rank.set_succeeded(true);
    (*report.mutable_result()->mutable_values())["score"] = task.score;
    return report;
  }

  void Receive() {
    while (!inbox_.empty()) {
      const v1::CoordinatorMessage message = std::move(inbox_.front());
      inbox_.pop_front();
      if (message.has_assign()) {
        const v1::Assign& assign = message.assign();
        if (tasks_.contains(assign.ref().fence())) continue;
        Task& task = tasks_[assign.ref().fence()];
        task.ref = assign.ref();
        task.rank = assign.ranks(0);
        task.is_search = assign.spec().has_prune_search();
        task.score = static_cast<double>((assign.spec().seed() ^ assign.spec().training().steps() * 7919) % 100'003);
      } else if (message.has_start()) {
        Task& task = tasks_.at(message.start().ref().fence());
        task.state = task.is_search ? v1::TASK_STATE_RUNNING : v1::TASK_STATE_EXITED;  // a trial takes no time
        task.is_reported = false;
      } else if (message.has_report_ack()) {
        const auto task = tasks_.find(message.report_ack().ref().fence());
        const bool is_done = task != tasks_.end() && task->second.state == v1::TASK_STATE_EXITED &&
                             message.report_ack().sequence() == v1::TASK_STATE_EXITED;
        if (is_done) tasks_.erase(task);
      } else if (message.has_trials_ack()) {
        TakeOutcomes(message.trials_ack().outcomes());
      }
    }
  }

  void TakeOutcomes(const v1::TrialOutcomes& outcomes) {
    TY_CHECK_EQ(outcomes.code(), 0);
    TY_CHECK_EQ(outcomes.generation(), generation_);
    for (const v1::TrialOutcome& outcome : outcomes.outcomes()) {
      TY_CHECK_EQ(outcome.state(), v1::JOB_STATE_SUCCEEDED);
      const double score = outcome.result().values().at("score");
      TY_CHECK_EQ(scores_.emplace(outcome.index(), score).first->second, score);
    }
    if (!outcomes.done()) return;
    TY_CHECK_EQ(scores_.size(), static_cast<size_t>(kTrials));
    const auto best = std::max_element(scores_.begin(), scores_.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    winner_ = static_cast<int64_t>(best->second);
    scores_.clear();
    ++generation_;
    asked_session_ = 0;
    for (auto& [fence, task] : tasks_) {
      if (!task.is_search || generation_ <= kGenerations) continue;
      task.state = v1::TASK_STATE_EXITED;
      task.score = static_cast<double>(winner_);
      task.is_reported = false;
    }
  }

  void AskForTrials() {
    const auto search = std::find_if(tasks_.begin(), tasks_.end(), [](const auto& task) {
      return task.second.is_search && task.second.state == v1::TASK_STATE_RUNNING;
    });
    if (session_ == 0 || search == tasks_.end() || asked_session_ == session_) return;
    v1::RunTrials message;
    *message.mutable_ref() = search->second.ref;
    message.mutable_generation()->set_number(generation_);
    for (int i = 0; i < kTrials; ++i) {
      *message.mutable_generation()->add_specs() =
          Spec(absl::StrCat("pretrain {} training { steps: ", 1 + (winner_ + i) % 1000, " }"));
    }
    asked_session_ = session_;
    if (changes_.size() < static_cast<size_t>(generation_)) changes_.push_back(inputs_);
    Ask([&](Effects* effects) { core_->RunTrials(session_, message, now_, effects); });
  }

  void Report() {
    std::vector<uint64_t> fences;
    for (const auto& [fence, task] : tasks_) fences.push_back(fence);
    for (const uint64_t fence : fences) {
      Task& task = tasks_.at(fence);
      if (session_ == 0 || task.is_reported) continue;
      task.is_reported = true;
      Ask([&](Effects* effects) { core_->Report(session_, ReportOf(task), now_, effects); });
      if (session_ == 0) task.is_reported = false;  // nobody has heard it
    }
    const auto record = records_.jobs().find("uid-of-search");
    has_ended_ = record != records_.jobs().end() && IsTerminal(record->second.job().state());
  }

  const Crash crash_;
  Now now_;
  MemoryRecords records_;
  std::unique_ptr<Core> core_;
  int inputs_ = 0;
  uint64_t session_ = 0, last_session_ = 0, asked_session_ = 0;
  std::deque<v1::CoordinatorMessage> inbox_;
  std::map<uint64_t, Task> tasks_;
  // The search's own memory.
  int generation_ = 1;
  int64_t winner_ = 0;
  std::map<int, double> scores_;
  std::vector<int> changes_;
  bool has_ended_ = false;
};

void ExpectAllOnce(const Search& search) {
  ASSERT_EQ(search.records().trials().size(), static_cast<size_t>(kGenerations * kTrials));
  for (const auto& [place, uid] : search.records().trials()) {
    const auto& [parent, generation, index] = place;
    EXPECT_EQ(uid, TrialUid(parent, generation, index));
    const JobRecord& record = search.records().jobs().at(uid);
    EXPECT_EQ(record.job().state(), v1::JOB_STATE_SUCCEEDED);
    EXPECT_EQ(record.attempt_count(), 1);
  }
  EXPECT_EQ(search.records().jobs().size(), static_cast<size_t>(kGenerations * kTrials) + 1);
  const v1::Job& job = search.records().jobs().at("uid-of-search").job();
  EXPECT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.result().values().at("score"), static_cast<double>(search.winner()));
  EXPECT_EQ(job.attempts_size(), 1);
}

TEST(GenerationChangeTest, TheWinnerIsTheSameWhereverTheCoordinatorDies) {
  Search undisturbed({});
  undisturbed.Run();
  ExpectAllOnce(undisturbed);
  ASSERT_EQ(undisturbed.changes().size(), static_cast<size_t>(kGenerations));
  int runs = 0;
  for (const int change : undisturbed.changes()) {
    for (int input = std::max(change - kNear, 2); input <= change + kNear; ++input) {  // after the submit
      for (const bool is_after_commit : {false, true}) {
        SCOPED_TRACE(absl::StrCat("input ", input, is_after_commit ? " after" : " before", " its commit"));
        Search search({.input = input, .is_after_commit = is_after_commit});
        search.Run();
        if (::testing::Test::HasFatalFailure()) return;
        ExpectAllOnce(search);
        EXPECT_EQ(search.winner(), undisturbed.winner());
        ++runs;
      }
    }
  }
  std::fprintf(stderr, "%d runs of %d trials, inputs near %d changes\n", runs, kGenerations * kTrials, kGenerations);
}

}  // namespace
}  // namespace trainyard::coordinator
