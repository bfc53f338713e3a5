// The daemon on a host with GPUs. The GPUs are made up (gpu/testing/fake_nvml.cc), the rest is real: dlopen, processes,
// gRPC.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "worker/daemon/gpu/nvml.h"
#include "worker/daemon/gpu/select.h"
#include "worker/daemon/gpu/testing/fake_node.h"
#include "worker/daemon/testing/daemon_fixture.h"

namespace trainyard::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kTwoGpus[] =
    "gpu GPU-a name=Fake_H100 memory=85899345920\ngpu GPU-b name=Fake_H100 memory=85899345920\n";

// One CPU slot (0), two GPU slots (1: GPU-a, 2: GPU-b), one driver slot (3).
class GpuDaemonTest : public DaemonTest {
 protected:
  GpuDaemonTest() : node(dir.Join("node")) { node.Say(kTwoGpus); }

  DaemonOptions GpuOptions() {
    DaemonOptions options = Options();
    options.cpu_slots = 1;
    options.driver_slots = 1;
    options.gpu.boot_id = "boot";
    options.gpu.job_mapping_dir = dir.Join("mapping");
    options.gpu.probe_interval = absl::Milliseconds(50);
    options.gpu.release_interval = absl::Milliseconds(20);
    return options;
  }
  void StartWithGpus(DaemonOptions options) {
    auto nvml = Nvml::Open(FakeNode::Library());
    TY_CHECK_OK(nvml);
    auto selection = SelectGpus("all", *(*nvml)->List(), 0);
    TY_CHECK_OK(selection);
    options.gpu.offered = selection->gpus;
    Start(options, *std::move(nvml));
  }
  void StartWithGpus() { StartWithGpus(GpuOptions()); }

  void AssignTo(uint64_t fence, const std::vector<int>& slots, const std::string& script) {
    v1::CoordinatorMessage message = AssignOf(fence, std::vector<std::string>(slots.size(), script), absl::Seconds(20));
    for (size_t i = 0; i < slots.size(); ++i) {
      message.mutable_assign()->mutable_ranks(static_cast<int>(i))->set_slot(slots[i]);
    }
    coordinator.Push(message);
  }
  std::string Output(uint64_t fence, int rank) { return coordinator.log(absl::StrCat("job", fence), rank, "stdout"); }
  bool WaitForHealth(int slot, bool healthy) {
    return WaitUntil([&] { return coordinator.slot(slot).healthy() == healthy; });
  }

  FakeNode node;
};

TEST_F(GpuDaemonTest, OffersASlotForEachGpuAndSaysWhatIsBehindIt) {
  StartWithGpus();
  const v1::Register registered = coordinator.registrations()[0];
  ASSERT_EQ(registered.slots_size(), 4);
  EXPECT_EQ(registered.slots(0).type(), v1::SLOT_TYPE_CPU);
  EXPECT_FALSE(registered.slots(0).has_gpu());
  for (const int slot : {1, 2}) {
    EXPECT_EQ(registered.slots(slot).type(), v1::SLOT_TYPE_GPU);
    EXPECT_TRUE(registered.slots(slot).healthy()) << registered.slots(slot).health_message();
    EXPECT_EQ(registered.slots(slot).gpu().index(), slot - 1);
    EXPECT_EQ(registered.slots(slot).gpu().uuid(), slot == 1 ? "GPU-a" : "GPU-b");
    EXPECT_EQ(registered.slots(slot).gpu().name(), "Fake H100");
    EXPECT_EQ(registered.slots(slot).gpu().memory_bytes(), int64_t{80} << 30);
    EXPECT_EQ(registered.slots(slot).gpu().compute_capability(), "9.0");
  }
  EXPECT_EQ(registered.slots(3).type(), v1::SLOT_TYPE_DRIVER);
  EXPECT_TRUE(WaitUntil([&] {
    const std::string page = Scrape(metrics->port());
    return page.find("trainyard_worker_slots{state=\"free\",type=\"gpu\"} 2") != std::string::npos &&
           page.find("trainyard_worker_slots{state=\"free\",type=\"cpu\"} 1") != std::string::npos &&
           page.find("trainyard_worker_gpu_healthy{gpu=\"1\",uuid=\"GPU-b\"} 1") != std::string::npos;
  })) << Scrape(metrics->port());
}

// The spawner was started with CUDA_VISIBLE_DEVICES=7 and NCCL_HOSTID=host (main, below).
TEST_F(GpuDaemonTest, ARankSeesItsOwnGpuAndNoOther) {
  DaemonOptions options = GpuOptions();
  options.runner_environment = {"TY_EXTRA=1"};
  StartWithGpus(options);
  const std::string script = "env:CUDA_VISIBLE_DEVICES env:NCCL_HOSTID env:TY_EXTRA ready train";
  AssignTo(5, {2, 1}, script);
  AssignTo(6, {0}, script);
  AssignTo(7, {3}, script);
  for (const uint64_t fence : {5, 6, 7}) StartTask(fence);
  const std::string rest = "\nNCCL_HOSTID is unset\nTY_EXTRA=1\n";
  EXPECT_TRUE(WaitUntil([&] { return Output(5, 0) == "CUDA_VISIBLE_DEVICES=GPU-b" + rest; })) << Output(5, 0);
  EXPECT_TRUE(WaitUntil([&] { return Output(5, 1) == "CUDA_VISIBLE_DEVICES=GPU-a" + rest; })) << Output(5, 1);
  EXPECT_TRUE(WaitUntil([&] { return Output(6, 0) == "CUDA_VISIBLE_DEVICES=" + rest; })) << Output(6, 0);
  EXPECT_TRUE(WaitUntil([&] { return Output(7, 0) == "CUDA_VISIBLE_DEVICES=" + rest; })) << Output(7, 0);
}

// CP-70.
TEST_F(GpuDaemonTest, DcgmExporterIsToldTheJobOfAGpuWhileItRuns) {
  ASSERT_OK(MakeDirs(dir.Join("mapping")));
  ASSERT_OK(WriteFileAtomic(dir.Join("mapping/0"), "left behind\n"));
  StartWithGpus();
  EXPECT_THAT(*ListDir(dir.Join("mapping")), IsEmpty());
  AssignTo(5, {2}, "ready train");
  StartTask(5);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_RUNNING));
  EXPECT_THAT(*ListDir(dir.Join("mapping")), ElementsAre("1"));
  EXPECT_EQ(*ReadFile(dir.Join("mapping/1")), "job5\n");
  StopTask(5, true, absl::Seconds(20));
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_THAT(*ListDir(dir.Join("mapping")), IsEmpty());
}

TEST_F(GpuDaemonTest, AGpuThatIsUnhealthyIsNotUsedUntilItIsWellAgain) {
  node.Say("gpu GPU-a\ngpu GPU-b remap_failed=1\n");
  StartWithGpus();
  EXPECT_FALSE(coordinator.registrations()[0].slots(2).healthy());
  EXPECT_THAT(coordinator.registrations()[0].slots(2).health_message(), HasSubstr("could not be remapped"));
  AssignTo(5, {1, 2}, "ready");
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_THAT(Exit(5, 0).message(), HasSubstr("slot 2 is unhealthy: a bad row"));
  EXPECT_TRUE(WaitUntil([&] {
    const std::string page = Scrape(metrics->port());
    return page.find("trainyard_worker_slots{state=\"unhealthy\",type=\"gpu\"} 1") != std::string::npos &&
           page.find("trainyard_worker_gpu_healthy{gpu=\"1\",uuid=\"GPU-b\"} 0") != std::string::npos;
  })) << Scrape(metrics->port());
  node.Say("gpu GPU-a error=15\ngpu GPU-b\n");
  EXPECT_TRUE(WaitForHealth(2, true));
  EXPECT_TRUE(WaitForHealth(1, false));
  EXPECT_THAT(coordinator.slot(1).health_message(), HasSubstr("GPU is lost"));
}

// CP-37: the gate looks again, whatever was known before.
TEST_F(GpuDaemonTest, NothingStartsBeforeAFreshLookAtItsGpus) {
  DaemonOptions options = GpuOptions();
  options.gpu.probe_interval = absl::Hours(1);
  StartWithGpus(options);
  ASSERT_TRUE(WaitForHealth(2, true));
  node.Say("gpu GPU-a\ngpu GPU-b used=700000000 pid=4321\n");
  AssignTo(5, {1, 2}, "print:1 ready");
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_EQ(Exit(5, 1).reason(), "GPU_UNHEALTHY");
  EXPECT_EQ(Exit(5, 1).failure_class(), v1::FAILURE_CLASS_INFRA);
  EXPECT_THAT(Exit(5, 1).message(), HasSubstr("GPU 1 of host: 667 MiB of its memory are in use"));
  EXPECT_THAT(Exit(5, 1).message(), HasSubstr("by process 4321"));
  EXPECT_EQ(Exit(5, 0).failure_class(), v1::FAILURE_CLASS_CONTROL);
  EXPECT_EQ(Exit(5, 0).reason(), "PEER_FAILED");
  EXPECT_TRUE(WaitUntil([&] { return Output(5, 0) == "<end>" && Output(5, 1) == "<end>"; })) << "a rank was started";
  EXPECT_THAT(coordinator.healthy_at_exit(5), ElementsAre(0, 1, 3));
  EXPECT_THAT(*ListDir(dir.Join("mapping")), IsEmpty());
}

TEST_F(GpuDaemonTest, AFatalXidEndsTheTaskAndMarksTheSlotUntilTheNextBoot) {
  StartWithGpus();
  AssignTo(5, {1}, "ready train");
  AssignTo(6, {2}, "ready train");
  for (const uint64_t fence : {5, 6}) {
    StartTask(fence);
    ASSERT_TRUE(WaitForState(fence, v1::TASK_STATE_RUNNING));
  }
  // An illegal address is the program's own mistake; a remapped row is as it should be.
  node.Say(absl::StrCat(kTwoGpus, "xid 1 GPU-b 31\nxid 2 GPU-b 63\nxid 3 GPU-a 79\n"));
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_EQ(Exit(5, 0).reason(), "GPU_XID");
  EXPECT_EQ(Exit(5, 0).failure_class(), v1::FAILURE_CLASS_INFRA);
  EXPECT_THAT(Exit(5, 0).message(), HasSubstr("XID 79 (the GPU has fallen off the bus) on GPU 0 (GPU-a)"));
  EXPECT_THAT(coordinator.healthy_at_exit(5), Not(::testing::Contains(1)));
  EXPECT_THAT(coordinator.slot(1).health_message(), HasSubstr("XID 79"));
  EXPECT_EQ(coordinator.state(6), v1::TASK_STATE_RUNNING);
  const std::string page = Scrape(metrics->port());
  EXPECT_THAT(page, HasSubstr("trainyard_worker_gpu_xids_total{class=\"fatal\",gpu=\"0\",uuid=\"GPU-a\"} 1"));
  EXPECT_THAT(page, HasSubstr("trainyard_worker_gpu_xids_total{class=\"noted\",gpu=\"1\",uuid=\"GPU-b\"} 1"));

  // The driver does not repeat itself to the next daemon.
  const auto restart = [&](const std::string& boot_id) {
    const size_t registrations = coordinator.registrations().size();
    daemon->Drain();
    daemon->Drain();
    thread.join();
    daemon.reset();
    node.Say(kTwoGpus);
    DaemonOptions options = GpuOptions();
    options.gpu.boot_id = boot_id;
    StartWithGpus(options);
    WaitUntil([&] { return coordinator.registrations().size() > registrations; });
    return coordinator.registrations().back();
  };
  const v1::Register again = restart("boot");
  EXPECT_FALSE(again.slots(1).healthy());
  EXPECT_THAT(again.slots(1).health_message(), HasSubstr("XID 79"));
  EXPECT_TRUE(again.slots(2).healthy());
  EXPECT_TRUE(restart("after the reboot").slots(1).healthy());
}

// The rank notices first, as a rule, and takes it for its own mistake.
TEST_F(GpuDaemonTest, AFatalXidExplainsAnEndThatWasSeenBefore) {
  StartWithGpus();
  AssignTo(5, {1}, "ready fail:CUDA_ERROR exit:70");
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_READY));
  node.Say("gpu GPU-a used=700000000\ngpu GPU-b\n");
  StartTask(5);
  ASSERT_TRUE(WaitUntil([&] { return coordinator.report(5).ranks_size() > 0 && Exit(5, 0).reason() == "CUDA_ERROR"; }));
  EXPECT_NE(coordinator.state(5), v1::TASK_STATE_EXITED);
  node.Say("gpu GPU-a used=700000000\ngpu GPU-b\nxid 1 GPU-a 48\n");
  ASSERT_TRUE(WaitUntil([&] { return Exit(5, 0).reason() == "GPU_XID"; }));
  node.Say("gpu GPU-a\ngpu GPU-b\nxid 1 GPU-a 48\n");
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_EQ(Exit(5, 0).failure_class(), v1::FAILURE_CLASS_INFRA);
  EXPECT_EQ(Exit(5, 0).exit_code(), 70);
  EXPECT_THAT(Exit(5, 0).message(), HasSubstr("XID 48"));
  EXPECT_THAT(Exit(5, 0).message(), HasSubstr("the rank's end: "));
}

// CP-21.
TEST_F(GpuDaemonTest, ASlotIsFreeOnlyWhenTheMemoryOfItsGpuIs) {
  StartWithGpus();
  AssignTo(5, {1}, "ready train");
  StartTask(5);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_RUNNING));
  node.Say("gpu GPU-a used=70000000000 pid=1\ngpu GPU-b\n");
  const pid_t rank = PidOf(5, 0);
  StopTask(5, true, absl::Seconds(20));
  ASSERT_TRUE(WaitUntil([&] { return !IsAlive(rank) && Exit(5, 0).reason() == "STOPPED"; }));
  // Many rounds of probes later:
  poll(nullptr, 0, 500);
  EXPECT_NE(coordinator.state(5), v1::TASK_STATE_EXITED);
  EXPECT_TRUE(coordinator.slot(1).healthy()) << "its memory was judged as if nobody had just used it";
  AssignTo(6, {1}, "ready");
  ASSERT_TRUE(WaitForState(6, v1::TASK_STATE_EXITED));
  EXPECT_THAT(Exit(6, 0).message(), HasSubstr("slot 1 is busy"));
  node.Say(kTwoGpus);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_THAT(coordinator.healthy_at_exit(5), ElementsAre(0, 1, 2, 3));
  AssignTo(7, {1}, "ready");
  EXPECT_TRUE(WaitForState(7, v1::TASK_STATE_READY));
}

TEST_F(GpuDaemonTest, MemoryThatStaysInUseMarksTheSlotBeforeTheTaskIsOver) {
  DaemonOptions options = GpuOptions();
  options.gpu.release_timeout = absl::Seconds(2);
  StartWithGpus(options);
  AssignTo(5, {1}, "ready steps:3 result exit:0");
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_READY));
  node.Say("gpu GPU-a used=700000000\ngpu GPU-b\n");
  StartTask(5);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_THAT(coordinator.healthy_at_exit(5), ElementsAre(0, 2, 3));
  ASSERT_TRUE(WaitForHealth(1, false));
  EXPECT_THAT(coordinator.slot(1).health_message(), HasSubstr("667 MiB of its memory are in use"));
  EXPECT_EQ(Exit(5, 0).reason(), "COMPLETED") << "the work was done all the same";
  node.Say(kTwoGpus);
  EXPECT_TRUE(WaitForHealth(1, true));
}

TEST_F(GpuDaemonTest, ADriverThatHangsCostsTheTaskButNotTheDaemon) {
  DaemonOptions options = GpuOptions();
  options.gpu.silence_timeout = absl::Milliseconds(400);
  StartWithGpus(options);
  node.Say(absl::StrCat(kTwoGpus, "hang\n"));
  AssignTo(5, {1}, "ready");
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_EQ(Exit(5, 0).reason(), "GPU_UNHEALTHY");
  EXPECT_THAT(Exit(5, 0).message(), HasSubstr("driver"));
  EXPECT_TRUE(WaitForHealth(1, false));
  EXPECT_THAT(coordinator.slot(2).health_message(), HasSubstr("has not answered for 400ms"));
  const int heartbeats = coordinator.heartbeats();
  EXPECT_TRUE(WaitUntil([&] { return coordinator.heartbeats() > heartbeats + 2; }));
  AssignTo(6, {0}, "ready");
  EXPECT_TRUE(WaitForState(6, v1::TASK_STATE_READY)) << "CPU slots need no driver";
  node.Say(kTwoGpus);
  EXPECT_TRUE(WaitForHealth(1, true));
  EXPECT_TRUE(WaitForHealth(2, true));
}

TEST_F(GpuDaemonTest, ATaskThatWaitsForTheLookCanBeStopped) {
  StartWithGpus();
  node.Say(absl::StrCat(kTwoGpus, "hang\n"));
  AssignTo(5, {1, 2}, "ready");
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_ASSIGNED));
  StopTask(5, true, absl::Seconds(20));
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_EQ(Exit(5, 0).failure_class(), v1::FAILURE_CLASS_CONTROL);
  EXPECT_EQ(Exit(5, 1).failure_class(), v1::FAILURE_CLASS_CONTROL);
  node.Say(kTwoGpus);
}

// The program with its flags.
class GpuProgramTest : public GpuDaemonTest {
 protected:
  pid_t StartProgram(const std::vector<std::string>& flags) {
    std::vector<std::string> argv = {Program("trainyard-worker"), "--coordinator", coordinator.address(), "--state_dir",
                                     dir.Join("state"),           "--runner",      Program("fake_runner")};
    argv.insert(argv.end(), flags.begin(), flags.end());
    std::vector<char*> words;
    for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    const std::string log = dir.Join("log");
    const pid_t pid = vfork();
    if (pid == 0) {
      const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      dup2(fd, 2);
      execv(words[0], words.data());
      _exit(127);
    }
    return pid;
  }
  // Of a program that ends by itself.
  std::string Complaint(const std::vector<std::string>& flags) {
    int status = 0;
    waitpid(StartProgram(flags), &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    return *ReadFile(dir.Join("log"));
  }
};

TEST_F(GpuProgramTest, OffersTheGpusOfItsFlags) {
  node.Say("gpu GPU-a\ngpu GPU-b\ngpu GPU-c mig=1\n");
  const pid_t pid = StartProgram({"--gpus", "GPU-b", "--cpu_slots", "0", "--driver_slots", "0", "--nvml_library",
                                  FakeNode::Library(), "--dcgm_job_mapping_dir", dir.Join("mapping"),
                                  "--gpu_memory_tolerance_mb", "1000", "--runner_env", "TY_EXTRA=1"});
  ASSERT_TRUE(WaitUntil([&] { return !coordinator.registrations().empty(); })) << *ReadFile(dir.Join("log"));
  const v1::Register registered = coordinator.registrations()[0];
  ASSERT_EQ(registered.slots_size(), 1);
  EXPECT_EQ(registered.slots(0).gpu().uuid(), "GPU-b");
  node.Say("gpu GPU-a\ngpu GPU-b used=900000000\ngpu GPU-c mig=1\n");
  AssignTo(5, {0}, "env:CUDA_VISIBLE_DEVICES env:TY_EXTRA ready train");
  EXPECT_TRUE(WaitUntil([&] { return Output(5, 0) == "CUDA_VISIBLE_DEVICES=GPU-b\nTY_EXTRA=1\n"; })) << Output(5, 0);
  EXPECT_EQ(*ReadFile(dir.Join("mapping/1")), "job5\n");
  kill(pid, SIGTERM);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << *ReadFile(dir.Join("log"));
}

TEST_F(GpuProgramTest, SaysWhyItCannotOfferThem) {
  EXPECT_THAT(Complaint({"--gpus", "all", "--nvml_library", "/nowhere.so"}),
              HasSubstr("is NVIDIA's driver installed, and given to this container?"));
  EXPECT_THAT(Complaint({"--gpus", "2", "--nvml_library", FakeNode::Library()}),
              HasSubstr("'2' is neither an index in [0, 2)"));
  EXPECT_THAT(Complaint({"--gpu_fatal_xids", "48,x"}), HasSubstr("--gpu_fatal_xids: 'x' is not an XID"));
  EXPECT_THAT(Complaint({"--gpus", "none", "--cpu_slots", "0"}), HasSubstr("nothing to offer"));
  EXPECT_THAT(Complaint({"--runner_env", "=1"}), HasSubstr("'=1' is neither NAME=VALUE nor NAME"));
  node.Say("init 9\n");
  EXPECT_THAT(Complaint({"--gpus", "0", "--nvml_library", FakeNode::Library()}), HasSubstr("not loaded on this host"));
  node.Say("gpu GPU-a mig=1\n");
  EXPECT_THAT(Complaint({"--gpus", "all", "--nvml_library", FakeNode::Library()}),
              HasSubstr("MIG instances are not supported"));
}

}  // namespace
}  // namespace trainyard::daemon

int main(int argc, char** argv) {
  // What a daemon may have been started with; runners must not see it.
  setenv("CUDA_VISIBLE_DEVICES", "7", 1);
  setenv("NCCL_HOSTID", "host", 1);
  return trainyard::daemon::RunDaemonTests(argc, argv);
}
