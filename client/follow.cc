#include "client/follow.h"

#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/backoff.h"
#include "base/status_macros.h"
#include "client/duration_text.h"
#include "client/progress_line.h"
#include "client/trials.h"

namespace trainyard::client {

absl::StatusOr<v1::Job> GetJob(Context& context, const std::string& job) {
  v1::GetRequest request;
  request.set_namespace_(context.settings.name_space);
  request.set_job(job);
  return context.jobs->Get(request);
}

absl::Status FollowJob(Context& context, const std::string& uid, const std::string& name_space, absl::Time deadline,
                       const FollowCallbacks& callbacks) {
  const BackoffOptions backoff = {.initial = absl::Milliseconds(200), .maximum = absl::Seconds(5)};
  v1::WatchRequest request;
  request.set_namespace_(name_space);
  request.set_job(uid);
  request.set_progress(true);
  int failures = 0;
  for (;;) {
    bool is_done = false;
    const absl::Status status = context.jobs->Watch(request, deadline, [&](const v1::WatchResponse& event) {
      if (failures > 0) context.err() << "trainyard: connected again\n";
      failures = 0;
      if (event.revision() > request.after_revision()) request.set_after_revision(event.revision());
      if (event.has_job() && event.job().uid() == uid) is_done = !callbacks.on_job(event.job());
      if (event.has_progress() && callbacks.on_progress) callbacks.on_progress(event.progress().progress());
      return !is_done;
    });
    if (is_done) return absl::OkStatus();
    if (absl::IsOutOfRange(status)) {
      if (request.after_revision() == 0) return status;
      request.set_after_revision(0);
      continue;
    }
    // OK: the server ended the stream, for example because it stops.
    if (!status.ok() && !absl::IsUnavailable(status)) return status;
    if (failures++ == 0) context.err() << "trainyard: connection lost, trying again (the job goes on)\n";
    if (absl::Now() >= deadline) return absl::DeadlineExceededError("the time is over");
    const absl::Duration pause = Backoff(backoff, failures - 1, 1);
    if (context.env.interrupt == nullptr) {
      absl::SleepFor(pause);
    } else if (context.env.interrupt->WaitFor(pause)) {
      return absl::CancelledError("interrupted");
    }
  }
}

std::string EndSummary(const v1::Job& job) {
  std::string out = absl::StrCat("job ", job.name(), " ", StateName(job.state()));
  if (job.has_start_time() && job.has_end_time()) {
    absl::StrAppend(&out, " after ", RoughDuration(ToTime(job.end_time()) - ToTime(job.start_time())));
  }
  if (job.state() != v1::JOB_STATE_SUCCEEDED && !job.exit().reason().empty()) {
    absl::StrAppend(&out, ": ", job.exit().reason());
    if (!job.exit().message().empty()) absl::StrAppend(&out, ": ", job.exit().message());
    for (const std::string& line : job.exit().last_log_lines()) absl::StrAppend(&out, "\n  | ", line);
  }
  absl::StrAppend(&out, "\n");
  if (const std::string trials = AllGenerationsText(job); !trials.empty()) absl::StrAppend(&out, "  ", trials, "\n");
  for (const auto& artifact : job.result().artifacts()) {
    absl::StrAppend(&out, "  ", artifact.name(), ": ", artifact.path(), "\n");
  }
  for (const auto& [name, text] : job.result().documents()) {
    absl::StrAppend(&out, "  ", name, ": trainyard get ", job.name(), " --document ", name, "\n");
  }
  for (const std::string& sample : job.result().samples()) absl::StrAppend(&out, "  sample: ", sample, "\n");
  return out;
}

namespace {

// Draws over one line on a terminal; elsewhere prints a line now and then.
class ProgressView {
 public:
  explicit ProgressView(Context& context) : context_(context) {}

  // What is known of the job's trials; shown with the next progress, at once on a terminal.
  void Trials(const std::string& text) {
    if (text == trials_) return;
    trials_ = text;
    if (context_.env.is_terminal && progress_.section() == "trials") Progress(progress_);
  }

  void Progress(const v1::JobProgress& progress) {
    progress_ = progress;
    const absl::Duration now = context_.env.clock->Monotonic();
    eta_.Add(progress.step(), now);
    const std::string line = ProgressLine(progress, eta_.Remaining(progress.total_steps()),
                                          context_.env.is_terminal ? context_.env.columns : 160, trials_);
    if (context_.env.is_terminal) {
      context_.out() << "\r\x1b[K" << line << std::flush;
      is_open_ = true;
      return;
    }
    const bool is_last = progress.step() == progress.total_steps() && progress.step() != last_step_;
    last_step_ = progress.step();
    if (has_printed_ && !is_last && (now - last_print_ < absl::Seconds(5) || line == last_line_)) return;
    last_line_ = line;
    has_printed_ = true;
    last_print_ = now;
    context_.out() << line << std::endl;
  }

  void Line(const std::string& text) {
    Close();
    context_.out() << text << std::endl;
  }

  void Close() {
    if (is_open_) context_.out() << std::endl;
    is_open_ = false;
  }

 private:
  Context& context_;
  EtaEstimate eta_;
  v1::JobProgress progress_;  // newest
  std::string trials_;
  std::string last_line_;
  bool is_open_ = false;
  bool has_printed_ = false;
  int64_t last_step_ = -1;
  absl::Duration last_print_;
};

std::string StateLine(const v1::Job& job) {
  std::string line = absl::StrCat("job ", job.name(), " ", StateName(job.state()));
  if (job.queue_position() > 0) absl::StrAppend(&line, ", position ", job.queue_position(), " in queue ", job.queue());
  if (!job.pending().message().empty()) absl::StrAppend(&line, ": ", job.pending().message());
  if (job.state() == v1::JOB_STATE_RUNNING && job.attempts_size() > 1) {
    const auto& attempt = job.attempts(job.attempts_size() - 1);
    absl::StrAppend(&line, ", attempt ", attempt.number(), " from step ", attempt.restored_step());
  }
  return line;
}

}  // namespace

int ShowJob(Context& context, const v1::Job& job) {
  ProgressView view(context);
  constexpr absl::Duration kTrialsInterval = absl::Seconds(2);
  absl::Duration trials_time = -absl::InfiniteDuration();
  v1::Job last = job;
  std::string last_line;
  const absl::Status status =
      FollowJob(context, job.uid(), job.namespace_(), absl::InfiniteFuture(),
                {.on_job =
                     [&](const v1::Job& now) {
                       last = now;
                       if (IsTerminal(now.state())) return false;
                       view.Trials(NewestGenerationText(now));
                       const std::string line = StateLine(now);
                       if (line != last_line) view.Line(line);
                       last_line = line;
                       return true;
                     },
                 .on_progress =
                     [&](const v1::JobProgress& progress) {
                       // What its trials do is no change of the job itself, so no event tells it.
                       const absl::Duration now = context.env.clock->Monotonic();
                       if (progress.section() == "trials" && now - trials_time >= kTrialsInterval) {
                         trials_time = now;
                         const absl::StatusOr<v1::Job> read = GetJob(context, job.uid());
                         if (read.ok()) view.Trials(NewestGenerationText(*read));  // else the next time
                       }
                       view.Progress(progress);
                     }});
  view.Close();
  if (absl::IsCancelled(status) && context.env.interrupt != nullptr && context.env.interrupt->triggered()) {
    context.err() << "Stopped watching; the job goes on. Watch again: trainyard watch " << job.name()
                  << "; end it: trainyard cancel " << job.name() << "\n";
    return kExitInterrupted;
  }
  if (!status.ok()) return Fail(context, status);
  context.out() << EndSummary(last);
  return ExitCodeOfEnd(last.state());
}

}  // namespace trainyard::client
