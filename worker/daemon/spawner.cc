#include "worker/daemon/spawner.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "worker/daemon/spawner_process.h"

namespace trainyard::daemon {

absl::StatusOr<Spawner> Spawner::Fork() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return ErrnoStatus(errno, "socketpair", "");
  UniqueFd mine(ends[0]), theirs(ends[1]);
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, "fork", "spawner");
  if (pid == 0) {
    mine.reset();
    RunSpawnerProcess(theirs.release());
  }
  return Spawner(std::move(mine));
}

absl::Status Spawner::Spawn(const SpawnRequest& request) {
  SpawnerOrder order;
  order.kind = SpawnerOrder::Kind::kSpawn;
  order.id = request.id;
  order.environment_count = static_cast<uint32_t>(request.environment.size());
  std::string message(reinterpret_cast<const char*>(&order), sizeof(order));
  for (const std::string& word : request.environment) message.append(word.c_str(), word.size() + 1);
  for (const std::string& word : request.command) message.append(word.c_str(), word.size() + 1);

  int fds[kMaxPassedFds] = {request.stdout_fd, request.stderr_fd, request.link_fd, request.lock_fd};
  const size_t fd_count = request.lock_fd >= 0 ? 4 : 3;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(fds))] = {};
  iovec io{message.data(), message.size()};
  msghdr header{};
  header.msg_iov = &io;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
  cmsghdr* rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
  std::memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
  if (sendmsg(socket_.get(), &header, MSG_NOSIGNAL) < 0) return ErrnoStatus(errno, "send to", "the spawner");
  return absl::OkStatus();
}

absl::Status Spawner::Signal(uint32_t id, int signal) {
  SpawnerOrder order;
  order.kind = SpawnerOrder::Kind::kSignal;
  order.id = id;
  order.signal = signal;
  if (send(socket_.get(), &order, sizeof(order), MSG_NOSIGNAL) < 0) return ErrnoStatus(errno, "send to", "the spawner");
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SpawnEvent>> Spawner::TakeEvents() {
  std::vector<SpawnEvent> events;
  while (true) {
    SpawnEvent event;
    const ssize_t got = recv(socket_.get(), &event, sizeof(event), MSG_DONTWAIT);
    if (got == sizeof(event)) {
      events.push_back(event);
    } else if (got < 0 && errno == EINTR) {
      continue;
    } else if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return events;
    } else if (!events.empty()) {
      return events;  // the end is seen again next time
    } else {
      return absl::UnavailableError("the spawner process has ended");
    }
  }
}

}  // namespace trainyard::daemon
