#include "client/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstdint>

#include "base/check.h"

namespace trainyard::client {
namespace {

int signal_fd = -1;  // written before the handler is installed, then only read

void OnSignal(int) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(signal_fd, &one, sizeof(one));
}

}  // namespace

Interrupt::Interrupt() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  TY_CHECK(fd_.valid());
}

void Interrupt::CatchSignals() {
  signal_fd = fd_.get();
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void Interrupt::Trigger() {
  const uint64_t one = 1;
  TY_CHECK_EQ(write(fd_.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
}

bool Interrupt::triggered() const {
  return WaitFor(absl::ZeroDuration());
}

bool Interrupt::WaitFor(absl::Duration timeout) const {
  pollfd entry = {.fd = fd_.get(), .events = POLLIN, .revents = 0};
  const int64_t milliseconds = std::clamp<int64_t>(absl::ToInt64Milliseconds(timeout), 0, 3'600'000);
  return poll(&entry, 1, static_cast<int>(milliseconds)) > 0;
}

}  // namespace trainyard::client
