#include "worker/runner/loop.h"

#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace trainyard::runner {
namespace {

class Loop {
 public:
  explicit Loop(const LoopParts& parts)
      : parts_(parts), snapshot_step_(parts.job->step()), snapshot_time_(parts.clock->Monotonic()) {}

  absl::StatusOr<LoopEnd> Run() {
    absl::StatusOr<LoopEnd> end = RunUnits();
    // Whatever failed after that, failed because of it.
    if (!end.ok() && parts_.stop->abandoned()) return LoopEnd{};
    return end;
  }

 private:
  // What the ranks tell each other between two units; sums over the ranks.
  struct Wishes {
    float stop = 0;
    float checkpoint = 0;
  };

  absl::StatusOr<LoopEnd> RunUnits() {
    while (true) {
      TY_ASSIGN_OR_RETURN(const Wishes wishes, Agree());
      if (wishes.stop > 0) return Stop();
      if (parts_.job->step() >= parts_.total_steps) return Finish();
      if (wishes.checkpoint > 0) TY_RETURN_IF_ERROR(Snapshot());
      parts_.context->EnterSection("train");
      absl::StatusOr<jobs::UnitResult> unit = parts_.job->RunUnit();
      if (absl::IsCancelled(unit.status()) && parts_.stop->requested()) continue;  // the next agreement stops all
      TY_RETURN_IF_ERROR(unit.status());
      parts_.context->ReportUnit(*unit, NewsOfCheckpointer());
      if (parts_.on_unit) parts_.on_unit(*unit);
      if (unit->done) return Finish();
    }
  }

  absl::StatusOr<Wishes> Agree() {
    Wishes wishes;
    wishes.stop = parts_.stop->requested() ? 1.0f : 0.0f;
    const int64_t step = parts_.job->step();
    if (parts_.checkpoint.interval_steps) {
      const bool is_due = step % *parts_.checkpoint.interval_steps == 0 && step != snapshot_step_;
      wishes.checkpoint = is_due ? 1.0f : 0.0f;
    } else if (parts_.checkpoint.interval && parts_.control->rank() == 0 && step != snapshot_step_) {
      // One clock decides for all.
      const bool is_due = parts_.clock->Monotonic() - snapshot_time_ >= *parts_.checkpoint.interval;
      wishes.checkpoint = is_due && !parts_.checkpointer->busy() ? 1.0f : 0.0f;
    }
    float both[2] = {wishes.stop, wishes.checkpoint};
    TY_RETURN_IF_ERROR(parts_.control->AllReduceSum(both, 2));
    return Wishes{both[0], both[1]};
  }

  absl::Status Snapshot() {
    parts_.context->EnterSection("checkpoint");
    snapshot_step_ = parts_.job->step();
    snapshot_time_ = parts_.clock->Monotonic();
    return parts_.checkpointer->Snapshot(snapshot_step_,
                                         [this](ckpt::CheckpointWriter& writer) { return parts_.job->Save(writer); });
  }

  absl::StatusOr<LoopEnd> Stop() {
    const int64_t step = parts_.job->step();
    // Every rank comes here at the same step and takes the same branch; a stop at once fails the collectives inside.
    if (parts_.checkpoint.on_stop && step != snapshot_step_) TY_RETURN_IF_ERROR(Snapshot());
    parts_.context->EnterSection("checkpoint");
    parts_.checkpointer->Wait();  // it logs a failure itself; the checkpoint before still holds
    LogInfo("stopped as asked after step ", step, "; committed step ", parts_.checkpointer->committed_step());
    return LoopEnd{};
  }

  absl::StatusOr<LoopEnd> Finish() {
    // So that a failure while exporting costs no training. It is written while the job exports.
    if (parts_.job->step() != snapshot_step_) TY_RETURN_IF_ERROR(Snapshot());
    parts_.context->EnterSection("export");
    absl::StatusOr<v1::JobResult> result = parts_.job->Finish();
    parts_.checkpointer->Wait();
    if (absl::IsCancelled(result.status()) && parts_.stop->requested()) return LoopEnd{};
    TY_RETURN_IF_ERROR(result.status());
    return LoopEnd{.is_done = true, .result = *std::move(result)};
  }

  // Each finished checkpoint once, as metrics of the next step.
  std::map<std::string, double> NewsOfCheckpointer() {
    const ckpt::CheckpointResult last = parts_.checkpointer->last();
    if (last.step < 0 || last.step == reported_step_ || parts_.checkpointer->busy()) return {};
    reported_step_ = last.step;
    if (!last.status.ok()) return {{"checkpoint_failed", 1.0}};
    return {{"checkpoint_step", static_cast<double>(last.step)},
            {"checkpoint_blocking_seconds", last.blocking_seconds},
            {"checkpoint_write_seconds", last.write_seconds},
            {"checkpoint_commit_seconds", last.commit_seconds},
            {"checkpoint_bytes", static_cast<double>(last.bytes)}};
  }

  const LoopParts& parts_;
  int64_t snapshot_step_;  // of the newest checkpoint made, or restored
  absl::Duration snapshot_time_;
  int64_t reported_step_ = -1;
};

}  // namespace

absl::StatusOr<LoopEnd> RunLoop(const LoopParts& parts) {
  return Loop(parts).Run();
}

}  // namespace trainyard::runner
