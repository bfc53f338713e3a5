// The way back from a failure, cut into phases that add up to it (effects.h). The phase and when it began are in the
// job's record, so a phase is counted by the very commit that ends it: once, also if the coordinator dies meanwhile. A
// coordinator that starts goes on with the phase; its length is then by the wall clock, which is all that survives.
#include <algorithm>

#include "coordinator/core/core.h"
#include "coordinator/core/times.h"

namespace trainyard::coordinator {

// `exit` is why the newest attempt has just ended.
void Core::BeginRecovery(JobEntry& entry, const v1::ExitRecord& exit, Now now) {
  absl::Duration detect;
  const auto worker = workers_.find(exit.worker_id());
  if (exit.reason() == "WORKER_LOST" && worker != workers_.end()) {
    detect = now.mono - worker->second.last_sign;
  } else {
    // A rank's end, by its worker's wall clock; timeouts have no time of their own and count from the placement.
    const v1::Attempt& attempt = entry.job().attempts(entry.job().attempts_size() - 1);
    detect = now.wall - FromProto(exit.has_time() ? exit.time() : attempt.create_time());
  }
  EnterRecoveryPhase(entry, RecoveryRecord::PHASE_STOP, now);
  *entry.record.mutable_recovery()->mutable_detect() = ToProto(std::max(detect, absl::ZeroDuration()));
}

void Core::EnterRecoveryPhase(JobEntry& entry, RecoveryRecord::Phase phase, Now now) {
  RecoveryRecord& recovery = *Touch(entry).record.mutable_recovery();
  recovery.set_phase(phase);
  *recovery.mutable_phase_begin() = ToProto(now.wall);
  entry.recovery_since = now.mono;
  entry.first_step_at.reset();
}

// Progress changes nothing durable, since it is also taken while nothing can be stored; the next Tick counts it.
void Core::NoteFirstStep(JobEntry& entry, Now now) {
  if (!IsIn(entry, RecoveryRecord::PHASE_FIRST_STEP) || entry.first_step_at) return;
  const v1::Attempt* attempt = LiveAttempt(entry);
  if (attempt == nullptr || entry.progress.step() <= attempt->restored_step()) return;
  entry.first_step_at = now.mono;
  first_steps_.insert(entry.job().uid());
}

// Keeps first_step_at: should the commit fail, the core that is loaded then adopts it.
void Core::TakeFirstStep(JobEntry& entry, Effects* effects) {
  if (!IsIn(entry, RecoveryRecord::PHASE_FIRST_STEP) || !entry.first_step_at) return;
  effects->recovery_times.push_back({RecoveryPhase::kFirstStep, *entry.first_step_at - entry.recovery_since});
  Touch(entry).record.clear_recovery();
}

}  // namespace trainyard::coordinator
