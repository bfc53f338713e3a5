// One thread that waits for descriptors and runs what others post to it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "base/unique_fd.h"

namespace trainyard {

class EventLoop {
 public:
  EventLoop();

  // All but Post are for the loop's thread. `on_ready` gets the poll events; it may remove any descriptor, its own too.
  void Watch(int fd, uint32_t events, std::function<void(uint32_t)> on_ready);
  void SetEvents(int fd, uint32_t events);
  // Before the descriptor is closed.
  void Forget(int fd);

  // Waits at most `timeout` for something to do, and does it.
  void RunOnce(absl::Duration timeout);

  // From any thread.
  void Post(std::function<void()> work);

 private:
  UniqueFd epoll_;
  UniqueFd wake_;
  std::map<int, std::function<void(uint32_t)>> watched_;
  Mutex mutex_;
  std::vector<std::function<void()>> posted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace trainyard
