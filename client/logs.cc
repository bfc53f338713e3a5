#include <algorithm>
#include <map>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "base/backoff.h"
#include "client/commands.h"
#include "client/duration_text.h"
#include "client/follow.h"

namespace trainyard::client {
namespace {

// Puts the frames of several streams out line by line, so that lines of two ranks never mix.
class LinePrinter {
 public:
  LinePrinter(Context& context, bool with_rank, absl::Time since)
      : context_(context), with_rank_(with_rank), since_(since) {}

  void Add(const v1::LogFrame& frame) {
    Stream& stream = streams_[{frame.rank(), frame.stream()}];
    if (frame.gap_bytes() > 0) {
      Flush(frame.rank(), stream);
      context_.out() << Prefix(frame.rank()) << "[" << frame.gap_bytes() << " bytes of " << frame.stream()
                     << " are gone]\n";
    }
    // After a reconnect the server may repeat what we have.
    const int64_t skip = std::max<int64_t>(0, stream.next_offset - frame.offset());
    if (skip >= static_cast<int64_t>(frame.data().size())) return;
    stream.next_offset = frame.offset() + static_cast<int64_t>(frame.data().size());
    if (frame.has_time() && ToTime(frame.time()) < since_) return;
    stream.pending.append(frame.data(), skip, std::string::npos);
    size_t start = 0;
    for (size_t end; (end = stream.pending.find('\n', start)) != std::string::npos; start = end + 1) {
      context_.out() << Prefix(frame.rank()) << stream.pending.substr(start, end - start) << "\n";
    }
    stream.pending.erase(0, start);
    context_.out() << std::flush;
  }

  // Lines that never got their end.
  void FlushAll() {
    for (auto& [key, stream] : streams_) Flush(key.first, stream);
  }

  // Where to go on so that nothing is missed.
  int64_t ResumeOffset() const {
    if (streams_.empty()) return 0;
    int64_t lowest = streams_.begin()->second.next_offset;
    for (const auto& [key, stream] : streams_) lowest = std::min(lowest, stream.next_offset);
    return lowest;
  }

 private:
  struct Stream {
    int64_t next_offset = 0;
    std::string pending;
  };

  std::string Prefix(int rank) const { return with_rank_ ? absl::StrCat("[rank ", rank, "] ") : ""; }

  void Flush(int rank, Stream& stream) {
    if (!stream.pending.empty()) context_.out() << Prefix(rank) << stream.pending << "\n";
    stream.pending.clear();
  }

  Context& context_;
  const bool with_rank_;
  const absl::Time since_;
  std::map<std::pair<int, std::string>, Stream> streams_;
};

}  // namespace

int RunLogs(const LogsOptions& options, Context& context) {
  absl::Time since = absl::InfinitePast();
  if (!options.since.empty()) {
    const auto ago = ParseDurationText(options.since);
    if (!ago.has_value()) {
      context.err() << "trainyard: --since " << options.since << ": not a duration such as 90s, 10m or 1h30m\n";
      return kExitUsage;
    }
    since = context.env.clock->Now() - *ago;
  }
  const auto job = GetJob(context, options.job);
  if (!job.ok()) return Fail(context, job.status());
  const int newest = job->attempts_size() > 0 ? job->attempts(job->attempts_size() - 1).number() : 0;
  if (newest == 0 && !options.follow) {
    context.err() << "trainyard: job " << job->name() << " has not started yet; follow it with -f\n";
    return kExitOk;
  }
  v1::LogsRequest request;
  request.set_namespace_(job->namespace_());
  request.set_job(job->uid());
  request.set_rank(options.rank);
  request.set_stream(options.stream);
  request.set_follow(options.follow);
  request.set_attempt(options.attempt);
  if (options.previous) {
    if (newest < 2) {
      context.err() << "trainyard: job " << job->name() << " has no attempt before the newest\n";
      return kExitNotFound;
    }
    request.set_attempt(newest - 1);
  }

  LinePrinter printer(context, options.rank < 0, since);
  const BackoffOptions backoff = {.initial = absl::Milliseconds(200), .maximum = absl::Seconds(5)};
  for (int failures = 0;;) {
    const absl::Status status = context.jobs->Logs(request, [&](const v1::LogFrame& frame) {
      failures = 0;
      // From here on it is this attempt: a newer one has offsets of its own.
      if (request.attempt() == 0) request.set_attempt(frame.attempt());
      printer.Add(frame);
      return true;
    });
    if (!absl::IsUnavailable(status) || !options.follow) {
      printer.FlushAll();
      return status.ok() ? kExitOk : Fail(context, status);
    }
    if (failures++ == 0) context.err() << "trainyard: connection lost, trying again\n";
    request.set_offset(printer.ResumeOffset());
    const absl::Duration pause = Backoff(backoff, failures - 1, 1);
    if (context.env.interrupt == nullptr) {
      absl::SleepFor(pause);
    } else if (context.env.interrupt->WaitFor(pause)) {
      return kExitInterrupted;
    }
  }
}

}  // namespace trainyard::client
