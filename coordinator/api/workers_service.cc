#include "coordinator/api/workers_service.h"

#include <grpcpp/grpcpp.h>

#include <deque>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "proto/rpc/status.h"

namespace trainyard::coordinator {
namespace {

// A worker that does not read is cut off rather than buffered without end.
constexpr size_t kMaxUnsent = 10'000;
// Inputs of one session that wait for the engine; more are left in the transport.
constexpr int kMaxInputs = 64;

using Reactor = grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>;

// Shared by the reactor, the engine's registry of sessions and inputs under way, since each may outlive the others.
class SessionState final : public SessionSink, public std::enable_shared_from_this<SessionState> {
 public:
  SessionState(Engine* engine, LogStore* logs, Reactor* reactor) : engine_(engine), logs_(logs), reactor_(reactor) {}

  void Begin() {
    id_ = engine_->AddSession(shared_from_this());
    MutexLock lock(&mutex_);
    reactor_->StartRead(&incoming_);
  }

  void OnReadDone(bool ok) {
    if (!ok) {
      Close(absl::OkStatus());  // the worker has ended the stream
      return;
    }
    {
      MutexLock lock(&mutex_);
      ++inputs_;
    }
    Dispatch();
    MutexLock lock(&mutex_);
    is_reading_ = false;
    ReadMore();
  }

  void OnWriteDone(bool ok) {
    MutexLock lock(&mutex_);
    is_writing_ = false;
    if (!unsent_.empty()) unsent_.pop_front();
    if (!ok) unsent_.clear();
    WriteMore();
  }

  // The stream is over; nothing may touch the reactor any more.
  void Detach() {
    {
      MutexLock lock(&mutex_);
      reactor_ = nullptr;
    }
    engine_->RemoveSession(id_);
    engine_->FromWorker([id = id_](Core& core, Now now, Effects* effects) { core.Disconnect(id); });
  }

  void Send(const v1::CoordinatorMessage& message) override {
    MutexLock lock(&mutex_);
    if (reactor_ == nullptr || is_finished_) return;
    if (unsent_.size() >= kMaxUnsent) {
      unsent_.erase(unsent_.begin() + (is_writing_ ? 1 : 0), unsent_.end());
      end_ = absl::ResourceExhaustedError("the worker does not read its session");
      is_closing_ = true;
    } else if (!is_closing_) {
      unsent_.push_back(message);
    }
    WriteMore();
  }

  void Close(const absl::Status& status) override {
    MutexLock lock(&mutex_);
    if (is_closing_) return;
    is_closing_ = true;
    end_ = status;
    WriteMore();
  }

 private:
  void Dispatch() {
    // The message moves into the input, which may be run again after a failed commit, so it is shared and const.
    auto message = std::make_shared<const v1::WorkerMessage>(std::move(incoming_));
    const uint64_t id = id_;
    const auto input = [&](auto apply) {
      engine_->FromWorker(
          [self = shared_from_this(), message, id, apply, done = false](Core& core, Now now, Effects* effects) mutable {
            apply(core, *message, id, now, effects);
            if (!std::exchange(done, true)) self->InputDone();
          });
    };
    switch (message->message_case()) {
      case v1::WorkerMessage::kRegister:
        input([](Core& core, const v1::WorkerMessage& m, uint64_t id, Now now, Effects* effects) {
          const absl::Status status = core.Register(id, m.register_(), now, effects);
          if (status.ok()) return;
          LogWarning("refused worker ", m.register_().worker_id(), ": ", std::string(status.message()));
          effects->closes.push_back({id, status});
        });
        return;
      case v1::WorkerMessage::kHeartbeat:
        // Counted from its arrival, not from when the engine had time for it (CP-23).
        engine_->FromWorkerVolatile(
            [self = shared_from_this(), message, id, received = engine_->now()](Core& core, Now now, Effects* effects) {
              if (core.Heartbeat(id, received)) {
                v1::CoordinatorMessage ack;
                ack.mutable_heartbeat_ack()->set_sequence(message->heartbeat().sequence());
                effects->pushes.push_back({id, std::move(ack)});
              }
              self->InputDone();
            });
        return;
      case v1::WorkerMessage::kTaskReport:
        input([](Core& core, const v1::WorkerMessage& m, uint64_t id, Now now, Effects* effects) {
          core.Report(id, m.task_report(), now, effects);
        });
        return;
      case v1::WorkerMessage::kProgress:
        engine_->FromWorkerVolatile([self = shared_from_this(), message, id](Core& core, Now now, Effects* effects) {
          core.Progress(id, message->progress(), now, effects);
          self->InputDone();
        });
        return;
      case v1::WorkerMessage::kCommitCheckpoint:
        input([](Core& core, const v1::WorkerMessage& m, uint64_t id, Now now, Effects* effects) {
          core.CommitCheckpoint(id, m.commit_checkpoint(), now, effects);
        });
        return;
      case v1::WorkerMessage::kSlotHealth:
        input([](Core& core, const v1::WorkerMessage& m, uint64_t id, Now now, Effects* effects) {
          core.SetSlotHealth(id, m.slot_health(), now, effects);
        });
        return;
      case v1::WorkerMessage::kRunTrials:
        input([](Core& core, const v1::WorkerMessage& m, uint64_t id, Now now, Effects* effects) {
          core.RunTrials(id, m.run_trials(), now, effects);
        });
        return;
      case v1::WorkerMessage::kLog:
        AppendLog(message);
        return;
      case v1::WorkerMessage::MESSAGE_NOT_SET:
        InputDone();
        return;
    }
  }

  // The core is asked once an attempt; the file is written on this stream's own thread.
  void AppendLog(const std::shared_ptr<const v1::WorkerMessage>& message) {
    const v1::LogChunk& chunk = message->log();
    const bool is_valid = (chunk.stream() == "stdout" || chunk.stream() == "stderr") && chunk.rank() >= 0 &&
                          chunk.offset() >= 0 && chunk.gap_bytes() >= 0;
    bool is_known = false;
    {
      MutexLock lock(&mutex_);
      is_known = log_fences_.contains(chunk.ref().fence());
      if (!is_valid || is_known) --inputs_;
    }
    if (!is_valid) return;
    if (is_known) {
      WriteLog(chunk);
      return;
    }
    engine_->FromWorkerVolatile([self = shared_from_this(), message, id = id_](Core& core, Now now, Effects* effects) {
      if (core.MayLog(id, message->log().ref())) {
        {
          MutexLock lock(&self->mutex_);
          self->log_fences_.insert(message->log().ref().fence());
        }
        self->WriteLog(message->log());
      }
      self->InputDone();
    });
  }

  void WriteLog(const v1::LogChunk& chunk) {
    const LogKey key{chunk.ref().job_uid(), chunk.ref().attempt(), chunk.rank(), chunk.stream()};
    const auto next = logs_->Append(key, chunk.offset(), chunk.gap_bytes(), chunk.data(), chunk.end());
    if (!next.ok()) {
      LogWarning("cannot keep logs of job ", key.job_uid, ": ", std::string(next.status().message()));
    }
    v1::CoordinatorMessage ack;
    *ack.mutable_log_ack()->mutable_ref() = chunk.ref();
    ack.mutable_log_ack()->set_rank(chunk.rank());
    ack.mutable_log_ack()->set_stream(chunk.stream());
    ack.mutable_log_ack()->set_next_offset(next.ok() ? *next : logs_->Size(key));
    Send(ack);
  }

  void InputDone() {
    MutexLock lock(&mutex_);
    --inputs_;
    ReadMore();
  }

  void ReadMore() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (reactor_ == nullptr || is_reading_ || is_finished_ || is_closing_ || inputs_ >= kMaxInputs) return;
    is_reading_ = true;
    reactor_->StartRead(&incoming_);
  }

  void WriteMore() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (reactor_ == nullptr || is_writing_ || is_finished_) return;
    if (!unsent_.empty()) {
      is_writing_ = true;
      reactor_->StartWrite(&unsent_.front());
      return;
    }
    if (!is_closing_) return;
    is_finished_ = true;
    reactor_->Finish(ToGrpcStatus(end_));
  }

  Engine* const engine_;
  LogStore* const logs_;
  uint64_t id_ = 0;             // set before the first read
  v1::WorkerMessage incoming_;  // the reader's

  Mutex mutex_;
  Reactor* reactor_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::CoordinatorMessage> unsent_ ABSL_GUARDED_BY(mutex_);  // the front is being written
  std::set<uint64_t> log_fences_ ABSL_GUARDED_BY(mutex_);              // attempts whose logs are welcome
  int inputs_ ABSL_GUARDED_BY(mutex_) = 0;
  bool is_reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool is_writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
};

class SessionReactor final : public Reactor {
 public:
  SessionReactor(Engine* engine, LogStore* logs) : state_(std::make_shared<SessionState>(engine, logs, this)) {
    state_->Begin();
  }
  void OnReadDone(bool ok) override { state_->OnReadDone(ok); }
  void OnWriteDone(bool ok) override { state_->OnWriteDone(ok); }
  void OnCancel() override { state_->Close(absl::CancelledError("the session was cancelled")); }
  void OnDone() override {
    state_->Detach();
    delete this;
  }

 private:
  const std::shared_ptr<SessionState> state_;
};

}  // namespace

Reactor* WorkersService::Session(grpc::CallbackServerContext* context) {
  return new SessionReactor(engine_, logs_);  // deletes itself in OnDone
}

}  // namespace trainyard::coordinator
