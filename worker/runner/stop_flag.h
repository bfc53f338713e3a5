// The wish that this rank stop: first kindly (checkpoint at the next step boundary, then leave), then at once.
#pragma once

#include <atomic>
#include <functional>
#include <utility>

#include "base/mutex.h"

namespace trainyard::runner {

// Safe from any thread; not from signal handlers.
class StopFlag {
 public:
  // StopRunner. Without checkpoint it means: at once.
  void Request(bool checkpoint) {
    requested_ = true;
    if (!checkpoint) Abandon();
  }
  // SIGTERM: kindly the first time, unless a stop is under way already.
  void Terminate() {
    if (requested_.exchange(true)) Abandon();
  }

  bool requested() const { return requested_; }
  // Leave without a checkpoint.
  bool abandoned() const { return abandoned_; }

  // Called once when the stop becomes one at once, maybe now: to abort what the main thread may be waiting in.
  void OnAbandon(std::function<void()> action) {
    {
      MutexLock lock(&mutex_);
      if (!abandoned_) {
        actions_ = std::move(action);
        return;
      }
    }
    action();
  }

 private:
  void Abandon() {
    std::function<void()> action;
    {
      MutexLock lock(&mutex_);
      if (abandoned_.exchange(true)) return;
      action = std::exchange(actions_, nullptr);
    }
    if (action) action();
  }

  std::atomic<bool> requested_{false};
  std::atomic<bool> abandoned_{false};
  Mutex mutex_;
  std::function<void()> actions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace trainyard::runner
