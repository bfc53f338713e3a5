#include "worker/daemon/rank_io.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/file.h"

namespace trainyard::daemon {
namespace {

absl::Status MakePipe(UniqueFd* reader, UniqueFd* writer) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe", "");
  reader->reset(ends[0]);
  writer->reset(ends[1]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankIo>> RankIo::Create(EventLoop* loop, Handlers handlers, RunnerEnds* ends) {
  std::unique_ptr<RankIo> io(new RankIo(loop, std::move(handlers)));
  for (int i = 0; i < 2; ++i) {
    UniqueFd* writer = i == 0 ? &ends->stdout_fd : &ends->stderr_fd;
    if (absl::Status status = MakePipe(&io->outputs_[i].fd, writer); !status.ok()) return status;
  }
  int link[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link) != 0) return ErrnoStatus(errno, "socketpair", "");
  io->link_.reset(link[0]);
  ends->link_fd.reset(link[1]);
  fcntl(link[0], F_SETFL, O_NONBLOCK);

  RankIo* raw = io.get();
  for (Output& output : io->outputs_) {
    loop->Watch(output.fd.get(), EPOLLIN, [raw, &output](uint32_t) { raw->ReadOutput(output); });
  }
  loop->Watch(link[0], EPOLLIN, [raw](uint32_t events) {
    if ((events & EPOLLOUT) != 0) raw->WriteLink();
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) raw->ReadLink();
  });
  return io;
}

RankIo::~RankIo() {
  CloseLink();
  for (Output& output : outputs_) {
    if (output.fd.valid()) loop_->Forget(output.fd.get());
  }
}

void RankIo::Open() {
  is_open_ = true;
  WriteLink();
}

void RankIo::Send(const v1::RunnerCommand& command) {
  absl::StatusOr<std::string> frame = runner::EncodeFrame(command);
  if (!frame.ok()) return handlers_.on_broken(frame.status());
  to_send_ += *frame;
  WriteLink();
}

void RankIo::WriteLink() {
  if (!is_open_ || !link_.valid()) return;
  size_t sent = 0;
  while (sent < to_send_.size()) {
    const ssize_t put = send(link_.get(), to_send_.data() + sent, to_send_.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (put < 0) return;  // the runner has gone; its end is reported by the spawner
    sent += static_cast<size_t>(put);
  }
  to_send_.erase(0, sent);
  loop_->SetEvents(link_.get(), to_send_.empty() ? uint32_t{EPOLLIN} : uint32_t{EPOLLIN | EPOLLOUT});
}

void RankIo::ReadLink() {
  char buffer[1 << 16];
  std::string payload;
  while (link_.valid()) {
    const ssize_t got = read(link_.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (got <= 0) return CloseLink();
    decoder_.Append(absl::string_view(buffer, static_cast<size_t>(got)));
    while (true) {
      absl::StatusOr<bool> next = decoder_.Next(&payload);
      v1::RunnerReport report;
      if (next.ok() && *next && !report.ParseFromString(payload)) {
        next = absl::DataLossError("a link message is not a RunnerReport");
      }
      if (!next.ok()) {
        CloseLink();
        return handlers_.on_broken(next.status());
      }
      if (!*next) break;
      handlers_.on_report(std::move(report));
    }
  }
}

void RankIo::CloseLink() {
  if (!link_.valid()) return;
  loop_->Forget(link_.get());
  link_.reset();
}

void RankIo::ReadOutput(Output& output) {
  char buffer[1 << 16];
  // Bounded, so that one that shouts does not keep the loop from the others.
  for (int i = 0; i < 16 && output.fd.valid(); ++i) {
    const ssize_t got = read(output.fd.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (got <= 0) return CloseOutput(output);
    handlers_.on_output(output.name, absl::string_view(buffer, static_cast<size_t>(got)));
  }
}

void RankIo::CloseOutput(Output& output) {
  if (!output.fd.valid()) return;
  loop_->Forget(output.fd.get());
  output.fd.reset();
  handlers_.on_output_end(output.name);
}

void RankIo::DrainOutput(bool close) {
  for (Output& output : outputs_) {
    ReadOutput(output);
    if (close) CloseOutput(output);
  }
}

}  // namespace trainyard::daemon
