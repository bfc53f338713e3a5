#include <ostream>

#include "client/commands.h"
#include "client/follow.h"
#include "client/pipeline.h"
#include "client/trials.h"

namespace trainyard::client {

// Why a job is where it is, in sentences.
int RunExplain(const std::string& name, Context& context) {
  const auto job = GetJob(context, name);
  if (!job.ok()) return Fail(context, job.status());
  if (PrintAsData(context, *job)) return kExitOk;
  std::ostream& out = context.out();
  out << "Job " << job->name() << " is " << StateName(job->state()) << ".\n";
  if (job->pending().code() != v1::PendingReason::CODE_UNSPECIFIED) {
    const auto& pending = job->pending();
    out << "It does not run: " << pending.message() << "\n";
    if (pending.slots_needed() > 0) {
      out << "It needs " << pending.slots_needed() << " slots; " << pending.slots_free() << " of "
          << pending.slots_total() << " are free.\n";
    }
    if (pending.has_retry_time()) out << "Next try at " << TimeText(pending.retry_time()) << ".\n";
  }
  if (job->queue_position() > 0) {
    out << "It is number " << job->queue_position() << " in queue " << job->queue() << " (priority " << job->priority()
        << ").\n";
  }
  if (const std::string after = DependenciesText(job->spec()); !after.empty()) {
    out << "It comes after " << after << ".\n";
  }
  if (!job->parent_uid().empty()) {
    out << "It is trial " << job->trial_index() << " of generation " << job->generation() << " of job "
        << job->parent_uid() << ".\n";
  }
  if (const std::string trials = NewestGenerationText(*job); !trials.empty() && !IsTerminal(job->state())) {
    out << "Its " << trials << ".\n";
  }
  if (job->has_decision_time()) out << "Last looked at by the scheduler: " << TimeText(job->decision_time()) << ".\n";
  for (const auto& attempt : job->attempts()) {
    if (attempt.exit().reason().empty()) continue;
    out << "Attempt " << attempt.number() << " ended: " << attempt.exit().reason();
    if (attempt.exit().rank() >= 0 && !attempt.exit().worker_id().empty()) {
      out << " (rank " << attempt.exit().rank() << " on " << attempt.exit().worker_id() << ")";
    }
    if (!attempt.exit().message().empty()) out << ": " << attempt.exit().message();
    out << "\n";
    for (const std::string& line : attempt.exit().last_log_lines()) out << "  | " << line << "\n";
  }
  if (IsTerminal(job->state()) && !job->exit().reason().empty()) {
    out << "It ended with " << job->exit().reason() << (job->exit().message().empty() ? "" : ": ")
        << job->exit().message() << "\n";
  }
  return kExitOk;
}

}  // namespace trainyard::client
