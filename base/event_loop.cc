#include "base/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <utility>

#include "base/check.h"

namespace trainyard {

EventLoop::EventLoop() : epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  TY_CHECK(epoll_.valid() && wake_.valid());
  Watch(wake_.get(), EPOLLIN, [this](uint32_t) {
    eventfd_t count;
    eventfd_read(wake_.get(), &count);
  });
}

void EventLoop::Watch(int fd, uint32_t events, std::function<void(uint32_t)> on_ready) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  TY_CHECK_EQ(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), 0);
  watched_[fd] = std::move(on_ready);
}

void EventLoop::SetEvents(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  TY_CHECK_EQ(epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event), 0);
}

void EventLoop::Forget(int fd) {
  if (watched_.erase(fd) > 0) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void EventLoop::RunOnce(absl::Duration timeout) {
  epoll_event events[32];
  const int count = epoll_wait(epoll_.get(), events, 32, static_cast<int>(absl::ToInt64Milliseconds(timeout)));
  for (int i = 0; i < count; ++i) {
    // A handler before may have removed it, or itself while it runs: hence the copy.
    const auto it = watched_.find(events[i].data.fd);
    if (it == watched_.end()) continue;
    const std::function<void(uint32_t)> on_ready = it->second;
    on_ready(events[i].events);
  }
  std::vector<std::function<void()>> work;
  {
    MutexLock lock(&mutex_);
    work.swap(posted_);
  }
  for (const auto& item : work) item();
}

void EventLoop::Post(std::function<void()> work) {
  {
    MutexLock lock(&mutex_);
    posted_.push_back(std::move(work));
  }
  eventfd_write(wake_.get(), 1);
}

}  // namespace trainyard
