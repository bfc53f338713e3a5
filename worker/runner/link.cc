#include "worker/runner/link.h"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::runner {

absl::StatusOr<std::string> EncodeFrame(const google::protobuf::MessageLite& message) {
  const size_t bytes = message.ByteSizeLong();
  if (bytes > kMaxFrameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("link message of ", bytes, " bytes, more than the limit of ", kMaxFrameBytes));
  }
  std::string frame;
  frame.reserve(bytes + 4);
  for (int i = 0; i < 4; ++i) frame.push_back(static_cast<char>((bytes >> (8 * i)) & 0xFF));
  message.AppendToString(&frame);
  return frame;
}

absl::StatusOr<bool> FrameDecoder::Next(std::string* payload) {
  const size_t available = buffer_.size() - begin_;
  if (available < 4) return false;
  uint32_t bytes = 0;
  for (int i = 0; i < 4; ++i) {
    bytes |= static_cast<uint32_t>(static_cast<unsigned char>(buffer_[begin_ + static_cast<size_t>(i)])) << (8 * i);
  }
  if (bytes > kMaxFrameBytes) {
    return absl::DataLossError(
        absl::StrCat("link frame of ", bytes, " bytes, more than the limit of ", kMaxFrameBytes));
  }
  if (available - 4 < bytes) return false;
  payload->assign(buffer_, begin_ + 4, bytes);
  begin_ += 4 + bytes;
  // Moving the rest down only now and then keeps many small messages in one read linear.
  if (begin_ == buffer_.size() || begin_ > (1 << 20)) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  return true;
}

std::unique_ptr<Link> Link::Start(UniqueFd socket, Handlers handlers) {
  std::unique_ptr<Link> link(new Link(std::move(socket), std::move(handlers)));
  link->reader_ = std::thread([raw = link.get()] { raw->Read(); });
  return link;
}

Link::Link(UniqueFd socket, Handlers handlers) : socket_(std::move(socket)), handlers_(std::move(handlers)) {}

Link::~Link() {
  shutdown(socket_.get(), SHUT_RD);  // wakes the reader; what was sent still arrives
  reader_.join();
}

void Link::Read() {
  FrameDecoder decoder;
  std::string payload;
  char buffer[1 << 16];
  while (true) {
    const ssize_t got = read(socket_.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      handlers_.on_closed(got == 0 ? absl::UnavailableError("the daemon closed the link")
                                   : ErrnoStatus(errno, "read", "link"));
      return;
    }
    decoder.Append(absl::string_view(buffer, static_cast<size_t>(got)));
    while (true) {
      absl::StatusOr<bool> next = decoder.Next(&payload);
      v1::RunnerCommand command;
      if (next.ok() && *next && !command.ParseFromString(payload)) {
        next = absl::DataLossError("a link message is not a RunnerCommand");
      }
      if (!next.ok()) {
        handlers_.on_closed(next.status());
        return;
      }
      if (!*next) break;
      handlers_.on_command(std::move(command));
    }
  }
}

absl::Status Link::Send(const v1::RunnerReport& report) {
  TY_ASSIGN_OR_RETURN(const std::string frame, EncodeFrame(report));
  MutexLock lock(&send_mutex_);
  size_t sent = 0;
  while (sent < frame.size()) {
    const ssize_t put = send(socket_.get(), frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return ErrnoStatus(errno, "send", "link");
    sent += static_cast<size_t>(put);
  }
  return absl::OkStatus();
}

}  // namespace trainyard::runner
