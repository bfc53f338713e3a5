// Ctrl-C as something that can be asked, waited for, and triggered by a test.
#pragma once

#include "absl/time/time.h"
#include "base/unique_fd.h"

namespace trainyard::client {

// Safe from any thread. Stays triggered.
class Interrupt {
 public:
  Interrupt();

  // From now on the first SIGINT or SIGTERM triggers this object, which must live as long as the process; a second one
  // ends the process.
  void CatchSignals();

  void Trigger();
  bool triggered() const;
  // Readable once triggered.
  int fd() const { return fd_.get(); }
  // True if triggered before `timeout` was over.
  bool WaitFor(absl::Duration timeout) const;

 private:
  UniqueFd fd_;
};

}  // namespace trainyard::client
