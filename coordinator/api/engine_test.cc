// The engine with a store that fails on demand (CP-59, scenario 14).
#include "coordinator/api/engine.h"

#include <atomic>
#include <functional>
#include <future>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "coordinator/store/sqlite_store.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace trainyard::coordinator {
namespace {

class FailingStore final : public Store {
 public:
  FailingStore(std::unique_ptr<Store> store, std::atomic<bool>* fails) : store_(std::move(store)), fails_(fails) {}

  absl::StatusOr<Records> Load() override { return store_->Load(); }
  absl::StatusOr<std::vector<StoredEvent>> LoadEvents(uint64_t* compacted) override {
    return store_->LoadEvents(compacted);
  }
  absl::Status Commit(const std::vector<Write>& writes) override {
    if (*fails_) return absl::ResourceExhaustedError("database or disk is full");
    return store_->Commit(writes);
  }
  absl::Status Probe() override {
    return *fails_ ? absl::ResourceExhaustedError("database or disk is full") : store_->Probe();
  }
  absl::StatusOr<StoredPoints> ReadMetrics(const std::string& uid, int64_t after_step) override {
    return store_->ReadMetrics(uid, after_step);
  }

 private:
  const std::unique_ptr<Store> store_;
  std::atomic<bool>* const fails_;
};

class Sink final : public SessionSink {
 public:
  void Send(const v1::CoordinatorMessage& message) override {
    MutexLock lock(&mutex_);
    messages_.push_back(message);
    changed_.NotifyAll();
  }
  void Close(const absl::Status& status) override {}

  // Waits for a message of the kind.
  void Await(v1::CoordinatorMessage::MessageCase wanted) {
    MutexLock lock(&mutex_);
    while (true) {
      for (const v1::CoordinatorMessage& message : messages_) {
        if (message.message_case() == wanted) return;
      }
      changed_.Wait(&mutex_);
    }
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<v1::CoordinatorMessage> messages_ ABSL_GUARDED_BY(mutex_);
};

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() {
    auto store = OpenSqliteStore({.directory = dir_.path()});
    TY_CHECK_OK(store);
    EngineOptions options;
    options.tick_interval = absl::Milliseconds(5);
    options.probe_interval = absl::Milliseconds(5);
    auto engine =
        Engine::Create(options, std::make_unique<FailingStore>(*std::move(store), &fails_), RealClock(), nullptr);
    TY_CHECK_OK(engine);
    engine_ = *std::move(engine);
  }

  absl::Status Submit(const std::string& name) {
    std::promise<absl::Status> answer;
    engine_->Change(
        [&](Core& core, Now now, Effects* effects) {
          v1::SubmitRequest request;
          TY_CHECK(google::protobuf::TextFormat::ParseFromString(
              R"(model { preset: "llama-1m" } data { path: "d" sequence_length: 64 } training { steps: 10 }
                 pretrain {})",
              request.mutable_spec()));
          request.mutable_spec()->set_name(name);
          return core.Submit(request, "uid-" + name, now, effects).status();
        },
        [&](const absl::Status& status, const Core* core, Now now) { answer.set_value(status); });
    return answer.get_future().get();
  }

  template <typename Result>
  Result Read(std::function<Result(const Core&, Now)> read) {
    std::promise<Result> answer;
    engine_->Read([&](const Core& core, Store& store, Now now) { answer.set_value(read(core, now)); });
    return answer.get_future().get();
  }

  v1::JobState StateOf(const std::string& name) {
    return Read<v1::JobState>([&](const Core& core, Now now) {
      const JobRecord* record = core.Record("uid-" + name);
      return record == nullptr ? v1::JOB_STATE_UNSPECIFIED : record->job().state();
    });
  }

  TempDir dir_;
  std::atomic<bool> fails_{false};
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, RefusedSubmitsNeverExistAndAcknowledgedOnesStay) {
  ASSERT_OK(Submit("before"));
  fails_ = true;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Submit(absl::StrCat("during-", i)).code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(StateOf("before"), v1::JOB_STATE_QUEUED);  // reads go on
    EXPECT_EQ(StateOf(absl::StrCat("during-", i)), v1::JOB_STATE_UNSPECIFIED);
  }
  fails_ = false;
  while (!Submit("after").ok()) {
  }
  engine_ = nullptr;
  ASSERT_OK_AND_ASSIGN(const auto store, OpenSqliteStore({.directory = dir_.path()}));
  ASSERT_OK_AND_ASSIGN(const Records records, store->Load());
  std::vector<std::string> names;
  for (const JobRecord& record : records.jobs) names.push_back(record.job().name());
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("before", "after"));
}

TEST_F(EngineTest, WorkersReportsWaitAndHeartbeatsGoOnWhileNothingCanBeStored) {
  auto sink = std::make_shared<Sink>();
  const uint64_t session = engine_->AddSession(sink);
  v1::Register reg;
  reg.set_worker_id("a");
  reg.set_incarnation("1");
  v1::WorkerSlot& slot = *reg.add_slots();
  slot.set_type(v1::SLOT_TYPE_CPU);
  slot.set_healthy(true);
  engine_->FromWorker(
      [&](Core& core, Now now, Effects* effects) { EXPECT_OK(core.Register(session, reg, now, effects)); });
  ASSERT_OK(Submit("job"));
  sink->Await(v1::CoordinatorMessage::kAssign);
  fails_ = true;
  v1::TaskReport ready;
  ready.mutable_ref()->set_job_uid("uid-job");
  ready.mutable_ref()->set_attempt(1);
  ready.mutable_ref()->set_fence(1);
  ready.set_state(v1::TASK_STATE_READY);
  ready.add_ranks()->set_state(v1::TASK_STATE_READY);
  engine_->FromWorker([&](Core& core, Now now, Effects* effects) { core.Report(session, ready, now, effects); });
  EXPECT_EQ(Submit("other").code(), absl::StatusCode::kResourceExhausted);  // by now the report's commit has failed
  EXPECT_EQ(StateOf("job"), v1::JOB_STATE_ADMITTED);
  std::promise<bool> alive;
  engine_->FromWorkerVolatile(
      [&](Core& core, Now now, Effects* effects) { alive.set_value(core.Heartbeat(session, now)); });
  EXPECT_TRUE(alive.get_future().get());  // the session outlived the core that was thrown away
  fails_ = false;
  sink->Await(v1::CoordinatorMessage::kStart);
  EXPECT_EQ(StateOf("job"), v1::JOB_STATE_RUNNING);
  engine_->RemoveSession(session);
}

TEST_F(EngineTest, StoppedEngineRefusesChangesAndStillReads) {
  ASSERT_OK(Submit("job"));
  engine_->Stop();
  EXPECT_EQ(Submit("late").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(StateOf("job"), v1::JOB_STATE_QUEUED);
}

}  // namespace
}  // namespace trainyard::coordinator
