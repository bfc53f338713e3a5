// Facts about processes, from /proc.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "absl/time/time.h"

namespace trainyard::daemon {

struct ProcessFacts {
  pid_t pid = 0;
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;
  char state = '?';          // 'Z' for one that only waits to be reaped
  uint64_t start_ticks = 0;  // since boot: with the pid it names a process for good
};

// False if there is no such process.
bool ReadProcess(pid_t pid, ProcessFacts* facts);
std::vector<ProcessFacts> AllProcesses();

// True while the group has a member that is not a zombie.
bool GroupIsAlive(pid_t group);

// Kills, with SIGKILL, what is left of a runner that an earlier daemon started: the process group of `pid`, if `pid` is
// still the process that began at `start_ticks` or is gone while its group (and session) lives on. Waits until the
// group is empty; false if it is not after `timeout`.
bool KillLeftOver(pid_t pid, uint64_t start_ticks, absl::Duration timeout);

}  // namespace trainyard::daemon
