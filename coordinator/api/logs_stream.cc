// Jobs.Logs: the streams of one attempt, each from its offset on; with `follow` until the attempt is over and
// everything of it has been sent (CP-11, CP-52).
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>

#include "absl/strings/str_cat.h"
#include "coordinator/api/jobs_service.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status.h"

namespace trainyard::coordinator {
namespace {

constexpr size_t kFrameBytes = 64 << 10;
// After the attempt's end a daemon may still have the last lines to upload; one that died never sends them.
constexpr absl::Duration kLastLines = absl::Seconds(5);

// All members but `cancelled_` belong to whoever runs the chain Look -> WriteNext -> OnWriteDone; there is one at a
// time.
class LogsReactor final : public grpc::ServerWriteReactor<v1::LogFrame> {
 public:
  LogsReactor(const JobsServiceParts& parts, const std::atomic<bool>& stopping, const v1::LogsRequest& request)
      : parts_(parts), stopping_(stopping), request_(request) {}

  // Asks the core which attempt it is and whether it is over; then writes.
  void Look() {
    parts_.engine->Read([this](const Core& core, Store& store, Now now) {
      absl::Status status = Resolve(core, now);
      // Files are read on the follower's thread, not on the engine's.
      parts_.follower->WakeLater([this, status] {
        if (status.ok()) {
          WriteNext();
        } else {
          End(status);
        }
      });
    });
  }

  void OnWriteDone(bool ok) override {
    if (!ok) cancelled_ = true;
    WriteNext();
  }

  void OnCancel() override { cancelled_ = true; }
  void OnDone() override { delete this; }

 private:
  struct Stream {
    LogKey key;
    int64_t offset = 0;
  };

  absl::Status Resolve(const Core& core, Now now) {
    const absl::StatusOr<std::string> uid = core.Find(request_.namespace_(), uid_.empty() ? request_.job() : uid_);
    if (!uid.ok()) return uid.status();
    uid_ = *uid;
    const v1::Job& job = core.Record(uid_)->job();
    const v1::Attempt* attempt = nullptr;
    for (const v1::Attempt& candidate : job.attempts()) {
      const int wanted = attempt_ > 0 ? attempt_ : request_.attempt();
      if (wanted == 0 || candidate.number() == wanted) attempt = &candidate;
    }
    is_over_ = IsTerminal(job.state());
    if (attempt == nullptr) {
      if (request_.attempt() == 0 || (request_.follow() && !is_over_)) return absl::OkStatus();  // not yet
      return ErrorWithReason(absl::StatusCode::kNotFound, "ATTEMPT_NOT_FOUND",
                             absl::StrCat("job ", job.name(), " has no attempt ", request_.attempt()),
                             {{"job", uid_}, {"attempt", absl::StrCat(request_.attempt())}});
    }
    is_over_ = IsTerminal(attempt->state());
    if (is_over_ && over_since_ == absl::InfiniteDuration()) over_since_ = now.mono;
    is_late_ = is_over_ && now.mono - over_since_ > kLastLines;
    // An attempt that was over when we came, long ago, has no last lines to wait for.
    if (is_over_ && now.wall - FromProto(attempt->end_time()) > kLastLines * 4) is_late_ = true;
    if (attempt_ == 0) {
      attempt_ = attempt->number();
      for (int rank = 0; rank < attempt->places_size(); ++rank) {
        if (request_.rank() >= 0 && rank != request_.rank()) continue;
        for (const char* stream : {"stdout", "stderr"}) {
          if (!request_.stream().empty() && request_.stream() != stream) continue;
          streams_.push_back({.key = {uid_, attempt_, rank, stream}, .offset = request_.offset()});
        }
      }
      for (Stream& stream : streams_) {
        if (stream.offset < 0) stream.offset = std::max<int64_t>(0, parts_.logs->Size(stream.key) + stream.offset);
      }
    }
    return absl::OkStatus();
  }

  void WriteNext() {
    if (cancelled_) return End(absl::CancelledError("cancelled"));
    bool all_ended = !streams_.empty();
    for (Stream& stream : streams_) {
      const bool had_ended = parts_.logs->HasEnded(stream.key);  // before reading, so nothing is missed
      const absl::StatusOr<LogPiece> piece = parts_.logs->Read(stream.key, stream.offset, kFrameBytes);
      if (!piece.ok()) return End(piece.status());
      if (piece->data.empty() && piece->gap_bytes == 0) {
        all_ended &= had_ended;
        continue;
      }
      frame_.Clear();
      frame_.set_attempt(stream.key.attempt);
      frame_.set_rank(stream.key.rank);
      frame_.set_stream(stream.key.stream);
      frame_.set_offset(piece->offset);
      frame_.set_gap_bytes(piece->gap_bytes);
      frame_.set_data(piece->data);
      *frame_.mutable_time() = ToProto(parts_.engine->now().wall);
      stream.offset = piece->offset + static_cast<int64_t>(piece->data.size());
      StartWrite(&frame_);
      return;
    }
    const bool complete = is_over_ && (all_ended || is_late_ || streams_.empty());
    if (!request_.follow() || complete) return End(absl::OkStatus());
    if (stopping_) {
      return End(ErrorWithReason(absl::StatusCode::kUnavailable, "STOPPING", "the coordinator is stopping"));
    }
    parts_.follower->WakeLater([this] {
      if (cancelled_) {
        End(absl::CancelledError("cancelled"));
      } else {
        Look();
      }
    });
  }

  void End(const absl::Status& status) { Finish(ToGrpcStatus(status)); }

  const JobsServiceParts& parts_;
  const std::atomic<bool>& stopping_;
  const v1::LogsRequest request_;
  std::atomic<bool> cancelled_{false};
  std::string uid_;
  int attempt_ = 0;
  bool is_over_ = false, is_late_ = false;
  absl::Duration over_since_ = absl::InfiniteDuration();
  std::vector<Stream> streams_;
  v1::LogFrame frame_;
};

class RefusedReactor final : public grpc::ServerWriteReactor<v1::LogFrame> {
 public:
  explicit RefusedReactor(const absl::Status& status) { Finish(ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerWriteReactor<v1::LogFrame>* JobsService::Logs(grpc::CallbackServerContext* context,
                                                          const v1::LogsRequest* request) {
  if (!request->stream().empty() && request->stream() != "stdout" && request->stream() != "stderr") {
    absl::Status status =
        absl::InvalidArgumentError(absl::StrCat("stream: \"", request->stream(), "\" is not stdout, stderr or empty"));
    SetFieldViolations(&status, {{"stream", "must be stdout, stderr or empty"}});
    return new RefusedReactor(status);  // deletes itself in OnDone
  }
  auto* reactor = new LogsReactor(parts_, stopping_, *request);  // deletes itself in OnDone
  reactor->Look();
  return reactor;
}

}  // namespace trainyard::coordinator
