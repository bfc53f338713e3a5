#include "worker/daemon/session.h"

#include <grpcpp/grpcpp.h>

#include <deque>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/status.h"
#include "proto/v1/worker.grpc.pb.h"

namespace trainyard::daemon {
namespace {

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const SessionOptions& options) {
  return MakeChannel(options.coordinator,
                     {.security = options.security, .retry = false, .max_send_bytes = kMaxSessionMessageBytes});
}

class GrpcSession final : public Session {
 public:
  GrpcSession(const SessionOptions& options, Handlers handlers) : options_(options), handlers_(std::move(handlers)) {
    thread_ = std::thread([this] { Run(); });
  }

  ~GrpcSession() override {
    {
      MutexLock lock(&mutex_);
      ending_ = true;
      if (context_ != nullptr) context_->TryCancel();
      changed_.NotifyAll();
    }
    thread_.join();
  }

  void Send(uint64_t generation, v1::WorkerMessage message) override {
    MutexLock lock(&mutex_);
    if (generation != generation_ || context_ == nullptr) return;
    outgoing_.push_back(std::move(message));
    changed_.NotifyAll();
  }

  void Close(uint64_t generation) override {
    MutexLock lock(&mutex_);
    if (generation == generation_ && context_ != nullptr) context_->TryCancel();
  }

  void ResetBackoff() override {
    MutexLock lock(&mutex_);
    failures_ = 0;
  }

  size_t queued() const override {
    MutexLock lock(&mutex_);
    return outgoing_.size();
  }

 private:
  using Stream = grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>;

  void Run() {
    while (true) {
      grpc::ClientContext context;
      uint64_t generation;
      {
        MutexLock lock(&mutex_);
        if (ending_) return;
        generation = ++generation_;
        context_ = &context;
        outgoing_.clear();
      }
      RunStream(&context, generation);
      absl::Duration wait;
      {
        MutexLock lock(&mutex_);
        wait = Backoff(options_.backoff, failures_++, options_.seed);
        // One notice ends the waiting early: that of the destructor.
        const auto deadline = absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()) + wait;
        while (!ending_) {
          const absl::Duration left = deadline - absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
          if (left <= absl::ZeroDuration()) break;
          changed_.WaitFor(&mutex_, left);
        }
      }
    }
  }

  void RunStream(grpc::ClientContext* context, uint64_t generation) {
    // A channel a try: one that has failed before refuses calls for a while without trying, which would add to the
    // back-off of our own.
    absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = OpenChannel(options_);
    TY_CHECK_OK(channel);  // Start has made one
    const std::unique_ptr<v1::Workers::Stub> stub = v1::Workers::NewStub(*std::move(channel));
    const std::unique_ptr<Stream> stream = stub->Session(context);
    handlers_.on_open(generation);
    std::thread writer([&] { Write(stream.get()); });
    v1::CoordinatorMessage message;
    while (stream->Read(&message)) handlers_.on_message(generation, std::exchange(message, {}));
    {
      MutexLock lock(&mutex_);
      context_ = nullptr;
      changed_.NotifyAll();
    }
    // Reads end when the call has ended, so a pending write fails too. No TryCancel here: it would replace the status
    // that the coordinator gave.
    writer.join();
    const absl::Status status = FromGrpcStatus(stream->Finish());
    handlers_.on_closed(generation, status);
  }

  void Write(Stream* stream) {
    while (true) {
      v1::WorkerMessage message;
      {
        MutexLock lock(&mutex_);
        while (outgoing_.empty() && context_ != nullptr) changed_.Wait(&mutex_);
        if (context_ == nullptr) return;
        message = std::move(outgoing_.front());
        outgoing_.pop_front();
      }
      if (!stream->Write(message)) return;  // the reader sees why
    }
  }

  const SessionOptions options_;
  const Handlers handlers_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;
  int failures_ ABSL_GUARDED_BY(mutex_) = 0;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;  // of the open stream
  std::deque<v1::WorkerMessage> outgoing_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Start(const SessionOptions& options, Handlers handlers) {
  TY_RETURN_IF_ERROR(OpenChannel(options).status());
  return std::unique_ptr<Session>(std::make_unique<GrpcSession>(options, std::move(handlers)));
}

}  // namespace trainyard::daemon
