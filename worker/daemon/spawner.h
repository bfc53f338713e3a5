// Starts runners from a process of its own. A process that has used gRPC must not fork (CP-53), so main forks this
// helper first; it execs runners and reports their ends.
//
// Each runner leads its own session and process group, so the terminal's Ctrl-C does not reach it, and one kill reaches
// all it started. What leaves the group is found too: orphans are handed to the spawner (subreaper), which kills those
// that belong to no live group. When the daemon dies, however it dies, the spawner sees its socket close, kills all
// groups, waits for them and exits; when the spawner dies, its runners die by PR_SET_PDEATHSIG.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace trainyard::daemon {

struct SpawnRequest {
  uint32_t id = 0;                   // the caller's, unused before; names the runner from here on
  std::vector<std::string> command;  // absolute program path and arguments; environment and folder are the daemon's
  // Changes to that environment, in order: "NAME=VALUE" sets, "NAME" unsets.
  std::vector<std::string> environment;
  // The runner gets these as 1, 2, 3 and, if valid, 4; nothing else but /dev/null as 0. The caller closes its copies.
  int stdout_fd = -1;
  int stderr_fd = -1;
  int link_fd = -1;
  int lock_fd = -1;
};

// The descriptor number of the link in the runner.
inline constexpr int kLinkFd = 3;

struct SpawnEvent {
  enum class Kind : uint32_t {
    kStarted,  // `pid`, `start_ticks`
    kFailed,   // `error`: could not be started; nothing follows
    kEnded,    // the first process: `exit_code` or `signal` (the other is -1); the rest of its group has got SIGKILL
    kGone,     // no process of it is left; nothing follows
  };
  Kind kind = Kind::kStarted;
  uint32_t id = 0;
  pid_t pid = 0;
  uint64_t start_ticks = 0;
  int error = 0;
  int exit_code = -1;
  int signal = -1;
};

// The daemon's end. One thread uses it.
class Spawner {
 public:
  // Forks the helper. Call before any thread exists and before gRPC is used.
  static absl::StatusOr<Spawner> Fork();

  // Answered by kStarted or kFailed.
  absl::Status Spawn(const SpawnRequest& request);
  // Signals the whole group; nothing if it is gone.
  absl::Status Signal(uint32_t id, int signal);

  // Readable when events wait.
  int fd() const { return socket_.get(); }
  // Never blocks. Unavailable if the helper has died: all runners are dead then, and the daemon should end.
  absl::StatusOr<std::vector<SpawnEvent>> TakeEvents();

 private:
  explicit Spawner(UniqueFd socket) : socket_(std::move(socket)) {}
  UniqueFd socket_;
};

}  // namespace trainyard::daemon
