#include "worker/daemon/processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace trainyard::daemon {

// Plain system calls only: the spawner uses this between fork and its end.
bool ReadProcess(pid_t pid, ProcessFacts* facts) {
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/stat", static_cast<int>(pid));
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  char text[1024];
  const ssize_t got = read(fd, text, sizeof(text) - 1);
  close(fd);
  if (got <= 0) return false;
  text[got] = '\0';
  // The name is in parentheses and may hold anything, so fields count from the last one.
  const char* after_name = std::strrchr(text, ')');
  if (after_name == nullptr) return false;
  int parent = 0, group = 0, session = 0;
  unsigned long long start = 0;
  // 3 state, 4 ppid, 5 pgrp, 6 session, 7..21, 22 starttime
  const int fields =
      std::sscanf(after_name + 1, " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                  &facts->state, &parent, &group, &session, &start);
  if (fields != 5) return false;
  facts->pid = pid;
  facts->parent = parent;
  facts->group = group;
  facts->session = session;
  facts->start_ticks = start;
  return true;
}

std::vector<ProcessFacts> AllProcesses() {
  std::vector<ProcessFacts> all;
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return all;
  while (const dirent* entry = readdir(proc)) {
    char* end = nullptr;
    const long pid = std::strtol(entry->d_name, &end, 10);
    ProcessFacts facts;
    if (pid > 0 && *end == '\0' && ReadProcess(static_cast<pid_t>(pid), &facts)) all.push_back(facts);
  }
  closedir(proc);
  return all;
}

bool GroupIsAlive(pid_t group) {
  if (kill(-group, 0) != 0) return false;
  // Zombies answer to kill as well.
  for (const ProcessFacts& facts : AllProcesses()) {
    if (facts.group == group && facts.state != 'Z') return true;
  }
  return false;
}

bool KillLeftOver(pid_t pid, uint64_t start_ticks, absl::Duration timeout) {
  ProcessFacts facts;
  // Another process with that number: then the old group is empty, as the kernel does not reuse the number of a group.
  if (ReadProcess(pid, &facts) && facts.start_ticks != start_ticks) return true;
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  while (GroupIsAlive(pid)) {
    kill(-pid, SIGKILL);
    if (std::chrono::steady_clock::now() > deadline) return false;
    poll(nullptr, 0, 10);
  }
  return true;
}

}  // namespace trainyard::daemon
