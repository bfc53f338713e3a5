// The daemon's ends of what it shares with one runner: the link and the pipes of stdout and stderr. Lives in the event
// loop; never blocks.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "base/unique_fd.h"
#include "proto/v1/link.pb.h"
#include "worker/runner/link.h"

namespace trainyard::daemon {

class RankIo {
 public:
  struct Handlers {
    std::function<void(v1::RunnerReport)> on_report;
    // What came over the link is no report: the runner cannot be trusted any more.
    std::function<void(absl::Status)> on_broken;
    // `stream` is "stdout" or "stderr".
    std::function<void(const char* stream, absl::string_view bytes)> on_output;
    std::function<void(const char* stream)> on_output_end;
  };

  // The runner's ends; to be closed once the runner has them.
  struct RunnerEnds {
    UniqueFd stdout_fd, stderr_fd, link_fd;
  };

  static absl::StatusOr<std::unique_ptr<RankIo>> Create(EventLoop* loop, Handlers handlers, RunnerEnds* ends);
  ~RankIo();

  // Nothing goes out before Open: the runner is not recorded on disk yet, and must not begin.
  void Open();
  void Send(const v1::RunnerCommand& command);

  // Reads what is there now; then, with `close`, gives the pipes up.
  void DrainOutput(bool close);
  void DrainLink() { ReadLink(); }

 private:
  struct Output {
    const char* name;
    UniqueFd fd;
  };

  RankIo(EventLoop* loop, Handlers handlers) : loop_(loop), handlers_(std::move(handlers)) {}
  void ReadLink();
  void WriteLink();
  void CloseLink();
  void ReadOutput(Output& output);
  void CloseOutput(Output& output);

  EventLoop* const loop_;
  const Handlers handlers_;
  UniqueFd link_;
  Output outputs_[2] = {{"stdout", UniqueFd()}, {"stderr", UniqueFd()}};
  runner::FrameDecoder decoder_;
  std::string to_send_;
  bool is_open_ = false;
};

}  // namespace trainyard::daemon
