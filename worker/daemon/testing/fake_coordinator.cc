#include "worker/daemon/testing/fake_coordinator.h"

#include <grpcpp/grpcpp.h>
#include <poll.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "proto/rpc/server.h"
#include "proto/v1/worker.grpc.pb.h"

namespace trainyard::daemon {

class FakeCoordinator::Service final : public v1::Workers::Service {
 public:
  explicit Service(FakeCoordinator* owner) : owner_(owner) {}

  using Stream = grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>;

  grpc::Status Session(grpc::ServerContext* context, Stream* stream) override {
    v1::WorkerMessage message;
    while (stream->Read(&message)) {
      const std::vector<v1::CoordinatorMessage> replies = Hear(message, stream);
      MutexLock lock(&write_mutex_);
      for (const v1::CoordinatorMessage& reply : replies) stream->Write(reply);
    }
    MutexLock lock(&write_mutex_);
    if (stream_ == stream) stream_ = nullptr;
    return grpc::Status::OK;
  }

  std::vector<v1::CoordinatorMessage> Hear(const v1::WorkerMessage& message, Stream* stream) {
    std::vector<v1::CoordinatorMessage> replies(1);
    MutexLock lock(&mutex_);
    switch (message.message_case()) {
      case v1::WorkerMessage::kRegister:
        registrations_.push_back(message.register_());
        for (const v1::WorkerSlot& slot : message.register_().slots()) slots_[slot.index()] = slot;
        *replies[0].mutable_registered() = owner_->registered;
        for (const v1::TaskReport& task : message.register_().tasks()) {
          Note(task);
          replies.emplace_back();
          *replies.back().mutable_report_ack()->mutable_ref() = task.ref();
          replies.back().mutable_report_ack()->set_sequence(task.sequence());
        }
        {
          MutexLock write_lock(&write_mutex_);
          stream_ = stream;
        }
        break;
      case v1::WorkerMessage::kHeartbeat:
        ++heartbeats_;
        replies[0].mutable_heartbeat_ack()->set_sequence(message.heartbeat().sequence());
        break;
      case v1::WorkerMessage::kTaskReport:
        Note(message.task_report());
        *replies[0].mutable_report_ack()->mutable_ref() = message.task_report().ref();
        replies[0].mutable_report_ack()->set_sequence(message.task_report().sequence());
        break;
      case v1::WorkerMessage::kProgress:
        for (const v1::MetricSample& sample : message.progress().samples()) {
          for (const auto& [name, value] : sample.values()) metrics_[name][sample.step()] = value;
        }
        return {};
      case v1::WorkerMessage::kLog: {
        const v1::LogChunk& chunk = message.log();
        Log& log = logs_[{chunk.ref().job_uid(), chunk.rank(), chunk.stream()}];
        if (chunk.offset() - chunk.gap_bytes() == log.size) {
          if (chunk.gap_bytes() > 0) absl::StrAppend(&log.text, "<gap ", chunk.gap_bytes(), ">");
          absl::StrAppend(&log.text, chunk.data(), chunk.end() ? "<end>" : "");
          log.size = chunk.offset() + static_cast<int64_t>(chunk.data().size());
        }
        v1::LogAck* ack = replies[0].mutable_log_ack();
        *ack->mutable_ref() = chunk.ref();
        ack->set_rank(chunk.rank());
        ack->set_stream(chunk.stream());
        ack->set_next_offset(log.size);
        break;
      }
      case v1::WorkerMessage::kCommitCheckpoint: {
        v1::CheckpointAck* ack = replies[0].mutable_checkpoint_ack();
        *ack->mutable_ref() = message.commit_checkpoint().ref();
        ack->set_step(message.commit_checkpoint().manifest().step());
        ack->set_code(owner_->commit_code);
        const std::map<int64_t, double>& losses = metrics_["loss"];
        commits_.emplace(ack->step(), losses.empty() ? 0 : losses.rbegin()->first);
        break;
      }
      case v1::WorkerMessage::kSlotHealth:
        for (const v1::WorkerSlot& slot : message.slot_health().slots()) slots_[slot.index()] = slot;
        return {};
      case v1::WorkerMessage::kRunTrials:
        trial_requests_.push_back(message.run_trials());
        return {};
      default:
        return {};
    }
    return replies;
  }

  void Note(const v1::TaskReport& report) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    v1::TaskReport& newest = reports_[report.ref().fence()];
    TY_CHECK(report.sequence() >= newest.sequence());
    if (report.state() == v1::TASK_STATE_EXITED && newest.state() != v1::TASK_STATE_EXITED) {
      for (const auto& [index, slot] : slots_) {
        if (slot.healthy()) healthy_at_exit_[report.ref().fence()].push_back(index);
      }
    }
    newest = report;
  }

  struct Log {
    std::string text;
    int64_t size = 0;
  };

  FakeCoordinator* const owner_;
  std::string address_ = "127.0.0.1:0";
  std::unique_ptr<RpcServer> server_;
  Mutex write_mutex_;
  Stream* stream_ ABSL_GUARDED_BY(write_mutex_) = nullptr;
  mutable Mutex mutex_;
  std::vector<v1::Register> registrations_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, v1::TaskReport> reports_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::map<int64_t, double>> metrics_ ABSL_GUARDED_BY(mutex_);
  std::map<std::tuple<std::string, int, std::string>, Log> logs_ ABSL_GUARDED_BY(mutex_);
  std::map<int64_t, int64_t> commits_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::RunTrials> trial_requests_ ABSL_GUARDED_BY(mutex_);
  std::map<int, v1::WorkerSlot> slots_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::vector<int>> healthy_at_exit_ ABSL_GUARDED_BY(mutex_);
  int heartbeats_ ABSL_GUARDED_BY(mutex_) = 0;
};

FakeCoordinator::FakeCoordinator() : service_(std::make_unique<Service>(this)) {
  registered.set_leader_epoch(1);
  registered.mutable_heartbeat_interval()->set_nanos(50'000'000);
  registered.mutable_lease_ttl()->set_seconds(15);
  registered.mutable_self_fence_after()->set_seconds(600);
  Start();
}

FakeCoordinator::~FakeCoordinator() {
  Stop();
}

void FakeCoordinator::Start() {
  auto server = RpcServer::Start({.address = service_->address_, .security = {}}, {service_.get()});
  TY_CHECK_OK(server);
  service_->server_ = *std::move(server);
  service_->address_ = service_->server_->address();
}

void FakeCoordinator::Stop() {
  if (service_->server_ != nullptr) service_->server_->Shutdown(absl::ZeroDuration());
  service_->server_ = nullptr;
}

const std::string& FakeCoordinator::address() const {
  return service_->address_;
}

void FakeCoordinator::Push(const v1::CoordinatorMessage& message) {
  MutexLock lock(&service_->write_mutex_);
  TY_CHECK(service_->stream_ != nullptr);
  service_->stream_->Write(message);
}

std::vector<v1::Register> FakeCoordinator::registrations() const {
  MutexLock lock(&service_->mutex_);
  return service_->registrations_;
}

v1::TaskReport FakeCoordinator::report(uint64_t fence) const {
  MutexLock lock(&service_->mutex_);
  const auto found = service_->reports_.find(fence);
  return found == service_->reports_.end() ? v1::TaskReport() : found->second;
}

std::string FakeCoordinator::log(const std::string& uid, int rank, const std::string& stream) const {
  MutexLock lock(&service_->mutex_);
  const auto found = service_->logs_.find({uid, rank, stream});
  return found == service_->logs_.end() ? "" : found->second.text;
}

std::map<int64_t, double> FakeCoordinator::metric(const std::string& name) const {
  MutexLock lock(&service_->mutex_);
  const auto found = service_->metrics_.find(name);
  return found == service_->metrics_.end() ? std::map<int64_t, double>() : found->second;
}

std::map<int64_t, int64_t> FakeCoordinator::commits() const {
  MutexLock lock(&service_->mutex_);
  return service_->commits_;
}

std::vector<v1::RunTrials> FakeCoordinator::trial_requests() const {
  MutexLock lock(&service_->mutex_);
  return service_->trial_requests_;
}

v1::WorkerSlot FakeCoordinator::slot(int index) const {
  MutexLock lock(&service_->mutex_);
  const auto found = service_->slots_.find(index);
  return found == service_->slots_.end() ? v1::WorkerSlot() : found->second;
}

std::vector<int> FakeCoordinator::healthy_at_exit(uint64_t fence) const {
  MutexLock lock(&service_->mutex_);
  const auto found = service_->healthy_at_exit_.find(fence);
  return found == service_->healthy_at_exit_.end() ? std::vector<int>() : found->second;
}

int FakeCoordinator::heartbeats() const {
  MutexLock lock(&service_->mutex_);
  return service_->heartbeats_;
}

bool WaitUntil(const std::function<bool()>& condition) {
  const absl::Duration deadline = RealClock()->Monotonic() + absl::Seconds(30);
  while (RealClock()->Monotonic() < deadline) {
    if (condition()) return true;
    poll(nullptr, 0, 5);
  }
  return condition();
}

}  // namespace trainyard::daemon
