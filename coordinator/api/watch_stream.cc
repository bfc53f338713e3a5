// Jobs.Watch: one WatchCursor written out message by message. The cursor's bound is the stream's.
#include <grpcpp/grpcpp.h>

#include "base/mutex.h"
#include "coordinator/api/jobs_service.h"
#include "proto/rpc/status.h"

namespace trainyard::coordinator {
namespace {

class WatchReactor final : public grpc::ServerWriteReactor<v1::WatchResponse> {
 public:
  explicit WatchReactor(WatchHub* hub) : hub_(hub), self_(std::make_shared<Self>()) { self_->reactor = this; }

  void Start(const v1::WatchRequest& request) {
    // A wake-up may come while the reactor ends: it goes through `self`, whose lock OnDone takes too.
    auto cursor = hub_->Subscribe(request, [self = self_] {
      MutexLock lock(&self->mutex);
      if (self->reactor != nullptr) self->reactor->WriteNext();
    });
    MutexLock lock(&self_->mutex);
    if (!cursor.ok()) {
      finished_ = true;
      Finish(ToGrpcStatus(cursor.status()));
      return;
    }
    cursor_ = *std::move(cursor);
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    MutexLock lock(&self_->mutex);
    writing_ = false;
    if (!ok) cancelled_ = true;
    WriteNext();
  }

  void OnCancel() override {
    MutexLock lock(&self_->mutex);
    cancelled_ = true;
    WriteNext();
  }

  void OnDone() override {
    if (cursor_ != nullptr) hub_->Unsubscribe(cursor_);
    {
      MutexLock lock(&self_->mutex);
      self_->reactor = nullptr;
    }
    delete this;
  }

 private:
  struct Self {
    Mutex mutex;
    WatchReactor* reactor ABSL_GUARDED_BY(mutex) = nullptr;
  };

  // Holds self_->mutex.
  void WriteNext() {
    if (writing_ || finished_ || cursor_ == nullptr) return;
    absl::Status end;
    if (!cancelled_ && cursor_->Pop(&response_, &end)) {
      writing_ = true;
      StartWrite(&response_);
      return;
    }
    if (!cancelled_ && end.ok()) return;
    finished_ = true;
    Finish(cancelled_ ? grpc::Status::CANCELLED : ToGrpcStatus(end));
  }

  WatchHub* const hub_;
  // Shared with the wake-up that the hub may be calling just now.
  const std::shared_ptr<Self> self_;
  std::shared_ptr<WatchCursor> cursor_;
  v1::WatchResponse response_;
  bool writing_ = false, finished_ = false, cancelled_ = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::WatchResponse>* JobsService::Watch(grpc::CallbackServerContext* context,
                                                                const v1::WatchRequest* request) {
  auto* reactor = new WatchReactor(parts_.watch_hub);  // deletes itself in OnDone
  reactor->Start(*request);
  return reactor;
}

}  // namespace trainyard::coordinator
