// Wakes those who follow logs, ten times a second, on one thread for all of them.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace trainyard::coordinator {

class LogFollower {
 public:
  LogFollower();
  ~LogFollower();

  // `wake` is called once, on the follower's thread, at the next turn; it may call WakeLater again.
  void WakeLater(std::function<void()> wake);

  // Runs what waits and ends the thread; later calls run `wake` never. Idempotent.
  void Stop();

 private:
  void Run();

  Mutex mutex_;
  CondVar changed_;
  std::vector<std::function<void()>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace trainyard::coordinator
