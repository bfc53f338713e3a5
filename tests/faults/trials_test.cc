// kill -9 of a real coordinator in the middle of a search of 1,000 trials, above all around generation changes: each
// trial has one result, runs once, and the winner is that of an undisturbed search (I23, scenario 13). The worker is a
// fake one, so that trials take no time; what it reports and asks for is what a daemon would.
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "coordinator/testing/fake_worker.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "proto/rpc/channel.h"
#include "proto/v1/coordinator.grpc.pb.h"
#include "tests/support/process.h"

namespace trainyard::testing_support {
namespace {

constexpr int kGenerations = 10;
constexpr int kTrials = 100;
constexpr int kSlots = 20;

v1::JobSpec Spec(const std::string& kind) {
  v1::JobSpec spec;
  TY_CHECK(google::protobuf::TextFormat::ParseFromString(
      absl::StrCat(R"(model { preset: "llama-1m" } data { path: "d" sequence_length: 64 } )", kind), &spec));
  return spec;
}

class Search {
 public:
  // Every input of the coordinator may be its last: with `kills` of them it is.
  Search(int kills, uint64_t seed) : kills_(kills), random_(seed) {
    StartCoordinator();
    worker_ = coordinator::FakeWorker::Start(OptionsOf());
    v1::SubmitRequest request;
    *request.mutable_spec() = Spec("prune_search {}");
    request.mutable_spec()->set_name("search");
    request.mutable_spec()->set_seed(23);
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::SubmitResponse response;
    EXPECT_TRUE(Stub()->Submit(&context, request, &response).ok());
  }

  void Run() {
    const absl::Time end = absl::Now() + absl::Minutes(4);
    while (!is_over_) {
      ASSERT_LT(absl::Now(), end) << "in generation " << generation_ << " with " << tasks_.size() << " tasks";
      const auto message = worker_->Await([](const v1::CoordinatorMessage&) { return true; }, absl::Seconds(5));
      if (!message) {
        Reconnect();
        continue;
      }
      Handle(*message);
      // Now and then, and often right after a generation was asked for.
      const double chance = messages_since_change_ < 3 ? 0.2 : 0.001;
      ++messages_since_change_;
      if (kills_ > 0 && std::uniform_real_distribution<double>(0, 1)(random_) < chance) Kill();
    }
  }

  int64_t winner() const { return winner_; }
  int kills_left() const { return kills_; }

  v1::Job Parent() {
    v1::GetRequest request;
    request.set_job("search");
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::Job job;
    EXPECT_TRUE(Stub()->Get(&context, request, &job).ok());
    return job;
  }

  std::vector<v1::Job> Trials() {
    std::vector<v1::Job> jobs;
    v1::ListRequest request;
    request.set_filter(absl::StrCat("parent=", Parent().uid()));
    request.set_page_size(500);
    do {
      grpc::ClientContext context;
      SetDeadline(&context);
      v1::ListResponse response;
      EXPECT_TRUE(Stub()->List(&context, request, &response).ok());
      jobs.insert(jobs.end(), response.jobs().begin(), response.jobs().end());
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    return jobs;
  }

 private:
  struct Task {
    v1::Assign assign;
    v1::TaskState state = v1::TASK_STATE_READY;
    bool is_search = false;
    int64_t score = 0;
  };

  coordinator::FakeWorkerOptions OptionsOf() const {
    return {.coordinator = address_,
            .worker_id = "w",
            .slots = kSlots,
            .driver_slots = 1,
            .heartbeat_interval = absl::Milliseconds(200),
            .is_obedient = false};
  }

  std::unique_ptr<v1::Jobs::Stub> Stub() { return v1::Jobs::NewStub(*MakeChannel(address_, {})); }

  void StartCoordinator() {
    const std::string port_file = dir_.Join("port");
    RemoveTree(port_file).IgnoreError();  // it may not exist
    char directory[4096];
    TY_CHECK(getcwd(directory, sizeof(directory)) != nullptr);
    process_ = std::make_unique<Process>(
        ProcessOptions{.argv = {absl::StrCat(directory, "/coordinator/trainyard-coordinator"), "--listen",
                                address_.empty() ? "127.0.0.1:0" : address_, "--data_dir", dir_.Join("data"),
                                "--metrics_listen", "", "--port_file", port_file, "--heartbeat_interval", "500ms",
                                "--lease_ttl", "30s", "--failover_grace", "60s", "--self_fence_after", "120s"},
                       .output_path = dir_.Join("coordinator.log")});
    const auto address = [&] {
      for (absl::string_view line : absl::StrSplit(ReadFile(port_file).value_or(""), '\n')) {
        const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
        if (words.size() == 2 && words[0] == "grpc") return words[1];
      }
      return std::string();
    };
    TY_CHECK(WaitUntil([&] { return !address().empty(); }, absl::Seconds(30)));
    address_ = address();
  }

  void Kill() {
    --kills_;
    process_->Signal(SIGKILL);
    process_->Wait(absl::Seconds(10));
    StartCoordinator();
    Reconnect();
  }

  void Reconnect() {
    std::vector<v1::TaskReport> reports;
    uint64_t fence = 0;
    for (const auto& [number, task] : tasks_) reports.push_back(ReportOf(task));
    for (const auto& [number, task] : tasks_) fence = std::max(fence, number);
    worker_ = coordinator::FakeWorker::Start(OptionsOf(), reports, fence, 0);
    AskForTrials();
  }

  static v1::TaskReport ReportOf(const Task& task) {
    v1::TaskReport report;
    *report.mutable_ref() = task.assign.ref();
    report.set_sequence(task.state);
    report.set_state(task.state);
    v1::RankStatus& rank = *report.add_ranks();
    rank.set_rank(task.assign.ranks(0).rank());
    rank.set_slot(task.assign.ranks(0).slot());
    rank.set_state(task.state);
    if (task.state != v1::TASK_STATE_EXITED) return report;
    rank.set_succeeded(true);
    (*report.mutable_result()->mutable_values())["score"] = static_cast<double>(task.score);
    return report;
  }

  void SendReport(const Task& task) {
    v1::WorkerMessage message;
    *message.mutable_task_report() = ReportOf(task);
    worker_->Send(message);
  }

  void Handle(const v1::CoordinatorMessage& message) {
    if (message.has_assign()) {
      const v1::Assign& assign = message.assign();
      const auto [it, is_new] = tasks_.try_emplace(assign.ref().fence());
      if (!is_new) return;
      Task& task = it->second;
      task.assign = assign;
      task.is_search = assign.spec().has_prune_search();
      task.score = static_cast<int64_t>((assign.spec().seed() ^ assign.spec().training().steps() * 7919) % 100'003);
      if (!task.is_search) {
        const auto run = std::make_pair(assign.ref().job_uid(), assign.ref().attempt());
        EXPECT_EQ(runs_[run]++, 0) << "a trial ran twice";
        EXPECT_EQ(assign.ref().attempt(), 1);
      }
      SendReport(task);
    } else if (message.has_start()) {
      const auto it = tasks_.find(message.start().ref().fence());
      if (it == tasks_.end() || it->second.state != v1::TASK_STATE_READY) return;
      Task& task = it->second;
      task.state = task.is_search ? v1::TASK_STATE_RUNNING : v1::TASK_STATE_EXITED;
      SendReport(task);
      if (task.is_search) AskForTrials();
    } else if (message.has_trials_ack()) {
      TakeOutcomes(message.trials_ack().outcomes());
    } else if (message.has_report_ack()) {
      const auto it = tasks_.find(message.report_ack().ref().fence());
      const bool is_done = it != tasks_.end() && message.report_ack().sequence() == v1::TASK_STATE_EXITED;
      if (!is_done) return;
      is_over_ = it->second.is_search;
      tasks_.erase(it);
    } else {
      EXPECT_FALSE(message.has_stop()) << message.ShortDebugString();
    }
  }

  void AskForTrials() {
    for (const auto& [fence, task] : tasks_) {
      if (!task.is_search || task.state != v1::TASK_STATE_RUNNING) continue;
      v1::WorkerMessage message;
      *message.mutable_run_trials()->mutable_ref() = task.assign.ref();
      message.mutable_run_trials()->mutable_generation()->set_number(generation_);
      for (int i = 0; i < kTrials; ++i) {
        *message.mutable_run_trials()->mutable_generation()->add_specs() =
            Spec(absl::StrCat("pretrain {} training { steps: ", 1 + (winner_ + i) % 1000, " }"));
      }
      worker_->Send(message);
      messages_since_change_ = 0;
      return;
    }
  }

  void TakeOutcomes(const v1::TrialOutcomes& outcomes) {
    ASSERT_EQ(outcomes.code(), 0) << outcomes.message();
    ASSERT_EQ(outcomes.generation(), generation_);
    for (const v1::TrialOutcome& outcome : outcomes.outcomes()) {
      ASSERT_EQ(outcome.state(), v1::JOB_STATE_SUCCEEDED);
      const int64_t score = static_cast<int64_t>(outcome.result().values().at("score"));
      EXPECT_EQ(scores_.emplace(outcome.index(), score).first->second, score);
    }
    if (!outcomes.done()) return;
    ASSERT_EQ(scores_.size(), static_cast<size_t>(kTrials));
    winner_ = 0;
    for (const auto& [index, score] : scores_) winner_ = std::max(winner_, score);
    scores_.clear();
    if (++generation_ <= kGenerations) {
      AskForTrials();
      return;
    }
    for (auto& [fence, task] : tasks_) {
      if (!task.is_search) continue;
      task.state = v1::TASK_STATE_EXITED;
      task.score = winner_;
      SendReport(task);
    }
  }

  TempDir dir_;
  std::string address_;
  std::unique_ptr<Process> process_;
  std::unique_ptr<coordinator::FakeWorker> worker_;
  int kills_;
  std::mt19937_64 random_;
  int messages_since_change_ = 100;
  std::map<uint64_t, Task> tasks_;  // by fence
  std::map<std::pair<std::string, int>, int> runs_;
  // The search's own memory.
  int generation_ = 1;
  int64_t winner_ = 0;
  std::map<int, int64_t> scores_;
  bool is_over_ = false;
};

TEST(TrialsFaultTest, KilledCoordinatorNeitherRepeatsNorLosesATrial) {
  Search undisturbed(0, 0);
  undisturbed.Run();
  ASSERT_FALSE(HasFatalFailure());
  Search disturbed(/*kills=*/12, /*seed=*/5);
  disturbed.Run();
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(disturbed.kills_left(), 0) << "the test killed less often than it says";
  EXPECT_EQ(disturbed.winner(), undisturbed.winner());
  const v1::Job parent = disturbed.Parent();
  EXPECT_EQ(parent.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(parent.attempts_size(), 1);
  ASSERT_EQ(parent.generations_size(), kGenerations);
  for (const v1::GenerationSummary& generation : parent.generations()) {
    EXPECT_EQ(generation.succeeded_count(), kTrials);
  }
  std::map<std::pair<int64_t, int>, int> places;
  for (const v1::Job& trial : disturbed.Trials()) {
    ++places[{trial.generation(), trial.trial_index()}];
    EXPECT_EQ(trial.state(), v1::JOB_STATE_SUCCEEDED);
    EXPECT_EQ(trial.attempts_size(), 1);
  }
  EXPECT_EQ(places.size(), static_cast<size_t>(kGenerations * kTrials));
  for (const auto& [place, count] : places) EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace trainyard::testing_support
