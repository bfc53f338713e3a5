// A daemon on its own thread, against a coordinator over real gRPC, with real runner processes that do as they are told
// (fake_runner.cc).
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/testing/temp_dir.h"
#include "base/unique_fd.h"
#include "gtest/gtest.h"
#include "worker/daemon/daemon.h"
#include "worker/daemon/processes.h"
#include "worker/daemon/proto_time.h"
#include "worker/daemon/testing/fake_coordinator.h"

namespace trainyard::daemon {

// Forked by ForkSpawners; each daemon takes one.
inline std::vector<Spawner>* spawners = nullptr;

inline std::string Program(const std::string& relative) {
  char path[4096];
  TY_CHECK(getcwd(path, sizeof(path)) != nullptr);
  return absl::StrCat(path, "/worker/daemon/", relative);
}

inline bool IsAlive(pid_t pid) {
  ProcessFacts facts;
  return ReadProcess(pid, &facts) && facts.state != 'Z';
}

inline std::string Scrape(int port, const std::string& path = "/metrics") {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return "";
  const std::string request = absl::StrCat("GET ", path, " HTTP/1.0\r\n\r\n");
  if (write(fd.get(), request.data(), request.size()) < 0) return "";
  std::string page;
  char buffer[4096];
  ssize_t got;
  while ((got = read(fd.get(), buffer, sizeof(buffer))) > 0) page.append(buffer, static_cast<size_t>(got));
  return page;
}

// A job whose ranks do as `script` says; see testing/fake_runner.cc.
inline v1::CoordinatorMessage AssignOf(uint64_t fence, const std::vector<std::string>& scripts, absl::Duration grace) {
  v1::CoordinatorMessage message;
  v1::Assign* assign = message.mutable_assign();
  assign->mutable_ref()->set_job_uid(absl::StrCat("job", fence));
  assign->mutable_ref()->set_attempt(1);
  assign->mutable_ref()->set_fence(fence);
  assign->set_world_size(static_cast<int>(scripts.size()));
  for (size_t rank = 0; rank < scripts.size(); ++rank) {
    v1::RankAssignment* a = assign->add_ranks();
    a->set_rank(static_cast<int>(rank));
    a->set_slot(static_cast<int>(rank));
    (*assign->mutable_spec()->mutable_annotations())[absl::StrCat("do.", rank)] = scripts[rank];
  }
  assign->set_job_dir(absl::StrCat("default/job", fence));
  SetProto(assign->mutable_prepare_timeout(), absl::Seconds(60));
  SetProto(assign->mutable_stop_grace(), grace);
  assign->set_leader_epoch(1);
  return message;
}

class DaemonTest : public ::testing::Test {
 protected:
  DaemonTest() { metrics = *Metrics::Create("127.0.0.1:0"); }
  ~DaemonTest() override {
    if (daemon == nullptr) return;
    daemon->Drain();
    daemon->Drain();
    thread.join();
  }

  DaemonOptions Options() {
    DaemonOptions options;
    options.session.coordinator = coordinator.address();
    options.session.backoff = {.initial = absl::Milliseconds(20), .maximum = absl::Milliseconds(100)};
    options.state_dir = dir.Join("state");
    options.job_root = dir.Join("jobs");
    options.data_root = dir.path();
    options.cpu_slots = 2;
    options.host = "host";
    options.address = "127.0.0.1";
    options.runner = {Program("fake_runner")};
    options.tick = absl::Milliseconds(10);
    options.progress_interval = options.log_interval = absl::Milliseconds(10);
    options.quick_grace = absl::Milliseconds(300);
    options.drain_report_timeout = absl::Seconds(2);
    return options;
  }

  void Start(const DaemonOptions& options, std::unique_ptr<Nvml> nvml = nullptr) {
    TY_CHECK(!spawners->empty());
    Spawner spawner = std::move(spawners->back());
    spawners->pop_back();
    auto created = Daemon::Create(options, std::move(spawner), metrics.get(), std::move(nvml));
    TY_CHECK_OK(created);
    daemon = *std::move(created);
    thread = std::thread([this] { end = daemon->Run(); });
    ASSERT_TRUE(WaitUntil([&] { return !coordinator.registrations().empty(); }));
  }
  void Start() { Start(Options()); }

  void Assign(uint64_t fence, const std::vector<std::string>& scripts, absl::Duration grace = absl::Seconds(20)) {
    coordinator.Push(AssignOf(fence, scripts, grace));
  }
  // Waits for READY, then starts.
  void StartTask(uint64_t fence) {
    ASSERT_TRUE(WaitForState(fence, v1::TASK_STATE_READY)) << coordinator.report(fence).DebugString();
    v1::CoordinatorMessage message;
    *message.mutable_start()->mutable_ref() = coordinator.report(fence).ref();
    message.mutable_start()->mutable_start()->set_membership_epoch(1);
    coordinator.Push(message);
  }
  void StopTask(uint64_t fence, bool checkpoint, absl::Duration grace) {
    v1::CoordinatorMessage message;
    *message.mutable_stop()->mutable_ref() = coordinator.report(fence).ref();
    message.mutable_stop()->set_reason(v1::STOP_REASON_CANCEL);
    message.mutable_stop()->set_checkpoint(checkpoint);
    SetProto(message.mutable_stop()->mutable_grace(), grace);
    coordinator.Push(message);
  }
  void SayOutcomes(uint64_t fence, int64_t generation, const std::vector<int>& indices, bool done, int code = 0) {
    v1::CoordinatorMessage message;
    *message.mutable_trials_ack()->mutable_ref() = coordinator.report(fence).ref();
    v1::TrialOutcomes* outcomes = message.mutable_trials_ack()->mutable_outcomes();
    outcomes->set_generation(generation);
    outcomes->set_done(done);
    outcomes->set_code(code);
    for (const int index : indices) outcomes->add_outcomes()->set_index(index);
    coordinator.Push(message);
  }
  bool WaitForLog(uint64_t fence, const std::string& text) {
    return WaitUntil(
        [&] { return coordinator.log(absl::StrCat("job", fence), 0, "stdout").find(text) != std::string::npos; });
  }
  bool WaitForState(uint64_t fence, v1::TaskState state) {
    return WaitUntil([&] { return coordinator.state(fence) == state; });
  }
  v1::ExitRecord Exit(uint64_t fence, int rank) { return coordinator.report(fence).ranks(rank).exit(); }
  // From the daemon's record on disk.
  pid_t PidOf(uint64_t fence, int rank) {
    pid_t pid = 0;
    WaitUntil([&] {
      const auto records = LoadTaskRecords(dir.Join("state/tasks"));
      if (!records.ok()) return false;
      for (const TaskRecord& record : *records) {
        const auto found = record.processes.find(rank);
        if (record.report.ref().fence() == fence && found != record.processes.end()) pid = found->second.pid;
      }
      return pid > 0;
    });
    return pid;
  }

  TempDir dir;
  FakeCoordinator coordinator;
  std::unique_ptr<Metrics> metrics;
  std::unique_ptr<Daemon> daemon;
  std::thread thread;
  absl::Status end;
};

// The tests' main: spawners are forked before gRPC and all threads.
inline int RunDaemonTests(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  std::vector<Spawner> forked;
  for (int i = 0; i < 16; ++i) {
    auto spawner = Spawner::Fork();
    TY_CHECK_OK(spawner);
    forked.push_back(*std::move(spawner));
  }
  spawners = &forked;
  return RUN_ALL_TESTS();
}

}  // namespace trainyard::daemon
