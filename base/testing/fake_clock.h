// A clock that moves only when a test says so. Safe from any thread.
#pragma once

#include "base/clock.h"
#include "base/mutex.h"

namespace trainyard {

class FakeClock final : public Clock {
 public:
  absl::Time Now() override {
    MutexLock lock(&mutex_);
    return wall_;
  }
  absl::Duration Monotonic() override {
    MutexLock lock(&mutex_);
    return monotonic_;
  }
  // Both clocks go forward.
  void Advance(absl::Duration by) {
    MutexLock lock(&mutex_);
    wall_ += by;
    monotonic_ += by;
  }
  // Only the wall clock jumps, as when an operator or NTP sets it.
  void StepWall(absl::Duration by) {
    MutexLock lock(&mutex_);
    wall_ += by;
  }

 private:
  Mutex mutex_;
  absl::Time wall_ ABSL_GUARDED_BY(mutex_) = absl::FromUnixSeconds(1'700'000'000);
  absl::Duration monotonic_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(1000);
};

}  // namespace trainyard
