#include "coordinator/testing/fake_worker.h"

#include <grpcpp/grpcpp.h>

#include <deque>
#include <map>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/mutex.h"
#include "proto/rpc/channel.h"
#include "proto/v1/worker.grpc.pb.h"

namespace trainyard::coordinator {
namespace {

class FakeWorkerImpl final : public FakeWorker {
 public:
  FakeWorkerImpl(const FakeWorkerOptions& options, const std::vector<v1::TaskReport>& tasks, uint64_t max_fence,
                 uint64_t max_leader_epoch)
      : options_(options) {
    auto channel = MakeChannel(options.coordinator, {.security = {}, .max_send_bytes = kMaxSessionMessageBytes});
    TY_CHECK_OK(channel);
    stub_ = v1::Workers::NewStub(*channel);
    stream_ = stub_->Session(&context_);
    v1::WorkerMessage message;
    v1::Register& reg = *message.mutable_register_();
    reg.set_worker_id(options.worker_id);
    reg.set_incarnation(absl::StrCat(options.worker_id, "-", options.start_count));
    reg.set_start_count(options.start_count);
    reg.set_host("host-of-" + options.worker_id);
    reg.set_address("127.0.0.1");
    reg.set_max_fence(max_fence);
    reg.set_max_leader_epoch(max_leader_epoch);
    for (int i = 0; i < options.slots + options.driver_slots; ++i) {
      v1::WorkerSlot& slot = *reg.add_slots();
      slot.set_index(i);
      slot.set_type(i < options.slots ? v1::SLOT_TYPE_CPU : v1::SLOT_TYPE_DRIVER);
      slot.set_healthy(true);
    }
    for (const v1::TaskReport& task : tasks) *reg.add_tasks() = task;
    Send(message);
    reader_ = std::thread([this] { ReadAll(); });
    beater_ = std::thread([this] { Beat(); });
  }

  ~FakeWorkerImpl() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      changed_.NotifyAll();
    }
    context_.TryCancel();
    reader_.join();
    beater_.join();
  }

  std::optional<v1::CoordinatorMessage> Await(Wanted wanted, absl::Duration timeout) override {
    const auto deadline = absl::Now() + timeout;
    MutexLock lock(&mutex_);
    while (true) {
      for (auto it = inbox_.begin(); it != inbox_.end(); ++it) {
        if (!wanted(*it)) continue;
        v1::CoordinatorMessage message = std::move(*it);
        inbox_.erase(it);
        return message;
      }
      if (ended_ || absl::Now() >= deadline) return std::nullopt;
      changed_.WaitFor(&mutex_, deadline - absl::Now());
    }
  }

  void Send(const v1::WorkerMessage& message) override {
    MutexLock lock(&write_mutex_);
    if (!finished_) stream_->Write(message);
  }

  void PauseHeartbeats(bool paused) override {
    MutexLock lock(&mutex_);
    paused_ = paused;
  }

  int AwaitEnd() override {
    MutexLock lock(&mutex_);
    while (!ended_) changed_.Wait(&mutex_);
    return end_code_;
  }

  void ReportAll(const v1::Assign& assign, v1::TaskState state) override {
    Report(assign, state, [](v1::RankStatus&) {});
  }

  void Succeed(const v1::Assign& assign, const v1::JobResult& result) override {
    Report(
        assign, v1::TASK_STATE_EXITED,
        [](v1::RankStatus& rank) {
          rank.set_succeeded(true);
          rank.mutable_exit()->set_exit_code(0);
        },
        &result);
  }

  void Fail(const v1::Assign& assign, int exit_code) override {
    Report(assign, v1::TASK_STATE_EXITED, [&](v1::RankStatus& rank) {
      rank.mutable_exit()->set_exit_code(exit_code);
      rank.mutable_exit()->set_message(absl::StrCat("exit ", exit_code));
    });
  }

  void Commit(const v1::AttemptRef& ref, int64_t step) override {
    v1::WorkerMessage message;
    *message.mutable_commit_checkpoint()->mutable_ref() = ref;
    v1::CheckpointManifest& manifest = *message.mutable_commit_checkpoint()->mutable_manifest();
    manifest.set_step(step);
    manifest.set_directory(absl::StrCat("attempt-", ref.attempt(), "-fence-", ref.fence(), "/checkpoints/", step));
    Send(message);
  }

 private:
  template <typename Fill>
  void Report(const v1::Assign& assign, v1::TaskState state, const Fill& fill, const v1::JobResult* result = nullptr) {
    v1::WorkerMessage message;
    v1::TaskReport& report = *message.mutable_task_report();
    *report.mutable_ref() = assign.ref();
    report.set_state(state);
    report.set_host_address("127.0.0.1");
    if (result != nullptr) *report.mutable_result() = *result;
    for (const v1::RankAssignment& assignment : assign.ranks()) {
      v1::RankStatus& rank = *report.add_ranks();
      rank.set_rank(assignment.rank());
      rank.set_slot(assignment.slot());
      rank.set_state(state);
      rank.set_comm_address(absl::StrCat("address-", assignment.rank()));
      fill(rank);
    }
    {
      MutexLock lock(&mutex_);
      report.set_sequence(++sequence_);
    }
    Send(message);
  }

  void ReadAll() {
    v1::CoordinatorMessage message;
    std::map<uint64_t, v1::Assign> tasks;  // by fence
    while (stream_->Read(&message)) {
      if (options_.is_obedient && message.has_assign()) {
        tasks[message.assign().ref().fence()] = message.assign();
        ReportAll(message.assign(), v1::TASK_STATE_READY);
      }
      if (options_.is_obedient && message.has_start()) {
        const auto task = tasks.find(message.start().ref().fence());
        if (task != tasks.end()) ReportAll(task->second, v1::TASK_STATE_RUNNING);
      }
      if (options_.is_obedient && message.has_stop()) {
        const auto task = tasks.find(message.stop().ref().fence());
        if (task != tasks.end()) Fail(task->second, 0);
      }
      MutexLock lock(&mutex_);
      inbox_.push_back(message);
      changed_.NotifyAll();
    }
    int code = 0;
    {
      MutexLock lock(&write_mutex_);
      finished_ = true;
      code = stream_->Finish().error_code();
    }
    MutexLock lock(&mutex_);
    end_code_ = code;
    ended_ = true;
    changed_.NotifyAll();
  }

  void Beat() {
    uint64_t sequence = 0;
    while (true) {
      bool paused = false;
      {
        MutexLock lock(&mutex_);
        if (stopping_ || ended_) return;
        changed_.WaitFor(&mutex_, options_.heartbeat_interval);
        if (stopping_ || ended_) return;
        paused = paused_;
      }
      if (paused) continue;
      v1::WorkerMessage message;
      message.mutable_heartbeat()->set_sequence(++sequence);
      Send(message);
    }
  }

  const FakeWorkerOptions options_;
  grpc::ClientContext context_;
  std::unique_ptr<v1::Workers::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>> stream_;
  Mutex write_mutex_;
  bool finished_ ABSL_GUARDED_BY(write_mutex_) = false;
  Mutex mutex_;
  CondVar changed_;
  std::deque<v1::CoordinatorMessage> inbox_ ABSL_GUARDED_BY(mutex_);
  uint64_t sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  int end_code_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread reader_, beater_;
};

}  // namespace

std::unique_ptr<FakeWorker> FakeWorker::Start(const FakeWorkerOptions& options,
                                              const std::vector<v1::TaskReport>& tasks, uint64_t max_fence,
                                              uint64_t max_leader_epoch) {
  return std::make_unique<FakeWorkerImpl>(options, tasks, max_fence, max_leader_epoch);
}

}  // namespace trainyard::coordinator
