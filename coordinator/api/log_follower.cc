#include "coordinator/api/log_follower.h"

#include <utility>
#include <vector>

namespace trainyard::coordinator {
namespace {

constexpr absl::Duration kTurn = absl::Milliseconds(100);

}  // namespace

LogFollower::LogFollower() : thread_([this] { Run(); }) {}

LogFollower::~LogFollower() {
  Stop();
}

void LogFollower::WakeLater(std::function<void()> wake) {
  MutexLock lock(&mutex_);
  if (stopping_) return;
  waiting_.push_back(std::move(wake));
  changed_.NotifyOne();
}

void LogFollower::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyOne();
  }
  if (thread_.joinable()) thread_.join();
}

void LogFollower::Run() {
  while (true) {
    std::vector<std::function<void()>> due;
    bool is_last = false;
    {
      MutexLock lock(&mutex_);
      while (waiting_.empty() && !stopping_) changed_.Wait(&mutex_);
      if (!stopping_) changed_.WaitFor(&mutex_, kTurn);
      is_last = stopping_;
      due.swap(waiting_);
    }
    for (const auto& wake : due) wake();
    if (is_last) return;
  }
}

}  // namespace trainyard::coordinator
