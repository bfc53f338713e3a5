// Through the real dlopen, against a stand-in for NVIDIA's library (testing/fake_nvml.cc).
#include "worker/daemon/gpu/nvml.h"

#include <poll.h>

#include <functional>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "worker/daemon/gpu/monitor.h"
#include "worker/daemon/gpu/testing/fake_node.h"

namespace trainyard::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class NvmlTest : public ::testing::Test {
 protected:
  NvmlTest() : node(dir.Join("node")) {}
  absl::StatusOr<std::unique_ptr<Nvml>> Open() { return Nvml::Open(FakeNode::Library()); }

  TempDir dir;
  FakeNode node;
};

TEST_F(NvmlTest, SaysWhatIsMissing) {
  EXPECT_THAT(Nvml::Open("/nowhere/libnvidia-ml.so.1"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/libnvidia-ml.so.1")));
  EXPECT_THAT(Nvml::Open("libc.so.6"), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("nvmlInit_v2")));
  node.Say("init 9\n");
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("driver is not loaded")));
  node.Say("init 18\n");
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("reboot")));
  node.Say("init 999\n");
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("NVML error 999")));
}

TEST_F(NvmlTest, ListsWhatTheDriverTells) {
  node.Say(
      "gpu GPU-a name=Fake_H100 memory=85899345920 cc=9.0 minor=3\n"
      "gpu GPU-b error=15\n"
      "gpu GPU-c cc=12.1 mig=1\n");
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Nvml> nvml, Open());
  EXPECT_EQ(nvml->driver_version(), "fake-1.0");
  ASSERT_OK_AND_ASSIGN(const std::vector<GpuIdentity> gpus, nvml->List());
  ASSERT_EQ(gpus.size(), 3u);
  EXPECT_EQ(gpus[0].index, 0);
  EXPECT_EQ(gpus[0].uuid, "GPU-a");
  EXPECT_EQ(gpus[0].name, "Fake H100");
  EXPECT_EQ(gpus[0].memory_bytes, int64_t{80} << 30);
  EXPECT_EQ(gpus[0].compute_major, 9);
  EXPECT_EQ(gpus[0].compute_minor, 0);
  EXPECT_EQ(gpus[0].minor_number, 3);
  EXPECT_FALSE(gpus[0].is_mig);
  EXPECT_EQ(gpus[0].error, "");
  EXPECT_THAT(gpus[1].error, HasSubstr("GPU is lost"));
  EXPECT_EQ(gpus[2].compute_major, 12);
  EXPECT_EQ(gpus[2].compute_minor, 1);
  EXPECT_TRUE(gpus[2].is_mig);
}

TEST_F(NvmlTest, ProbesWhatChanges) {
  node.Say("gpu GPU-a memory=1000000 used=300 reserved=5000 pid=42 remap_failed=1 recovery=1\ngpu GPU-b\n");
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Nvml> nvml, Open());
  GpuFacts facts = nvml->Probe("GPU-a");
  EXPECT_EQ(facts.error, "");
  EXPECT_EQ(facts.total_bytes, 1000000);
  EXPECT_EQ(facts.used_bytes, 300) << "what the driver keeps for itself is not in use by anybody";
  EXPECT_EQ(facts.row_remap_failed, true);
  EXPECT_EQ(facts.recovery_action, 1);
  ASSERT_EQ(facts.processes.size(), 1u);
  EXPECT_EQ(facts.processes[0].pid, 42);
  EXPECT_EQ(facts.processes[0].used_bytes, 300);
  facts = nvml->Probe("GPU-b");
  EXPECT_EQ(facts.row_remap_failed, false);
  EXPECT_EQ(facts.recovery_action, std::nullopt);
  EXPECT_THAT(facts.processes, IsEmpty());
  EXPECT_THAT(nvml->Probe("GPU-x").error, HasSubstr("Not Found"));
  node.Say("gpu GPU-a error=15\ngpu GPU-b\n");
  EXPECT_THAT(nvml->Probe("GPU-a").error, HasSubstr("GPU is lost"));
}

TEST_F(NvmlTest, HearsXidsOfTheGpusThatItListensTo) {
  node.Say("gpu GPU-a\ngpu GPU-b\nxid 1 GPU-b 31\nxid 2 GPU-a 79\nxid 3 GPU-a 48\n");
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Nvml> nvml, Open());
  EXPECT_THAT(nvml->WaitForXid(absl::ZeroDuration()), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no GPU")));
  EXPECT_OK(nvml->Listen("GPU-a"));
  ASSERT_OK_AND_ASSIGN(const XidEvent first, nvml->WaitForXid(absl::ZeroDuration()));
  EXPECT_EQ(first.uuid, "GPU-a");
  EXPECT_EQ(first.xid, 79);
  ASSERT_OK_AND_ASSIGN(const XidEvent second, nvml->WaitForXid(absl::ZeroDuration()));
  EXPECT_EQ(second.xid, 48);
  EXPECT_THAT(nvml->WaitForXid(absl::Milliseconds(1)), StatusIs(absl::StatusCode::kNotFound, ::testing::_));
  node.Say("gpu GPU-a\nno_events\n");
  EXPECT_THAT(nvml->Listen("GPU-a"), StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("Not Supported")));
}

class MonitorTest : public NvmlTest {
 protected:
  void Start() {
    ASSERT_OK_AND_ASSIGN(std::unique_ptr<Nvml> nvml, Open());
    ASSERT_OK_AND_ASSIGN(const std::vector<GpuIdentity> gpus, nvml->List());
    monitor = GpuMonitor::Start(std::move(nvml), gpus,
                                {.on_snapshot =
                                     [this](GpuSnapshot snapshot) {
                                       MutexLock lock(&mutex);
                                       snapshots.push_back(std::move(snapshot));
                                       said.push_back("snapshot");
                                     },
                                 .on_xid =
                                     [this](const XidEvent& event) {
                                       MutexLock lock(&mutex);
                                       said.push_back(absl::StrCat("xid ", event.xid));
                                     }});
  }
  // The first snapshot that was made after `ticket` was drawn.
  GpuSnapshot Await(uint64_t ticket) {
    const absl::Duration deadline = RealClock()->Monotonic() + absl::Seconds(30);
    while (RealClock()->Monotonic() < deadline) {
      {
        MutexLock lock(&mutex);
        for (const GpuSnapshot& snapshot : snapshots) {
          if (snapshot.ticket >= ticket) return snapshot;
        }
      }
      poll(nullptr, 0, 2);
    }
    return {};
  }
  size_t snapshot_count() {
    MutexLock lock(&mutex);
    return snapshots.size();
  }

  Mutex mutex;
  std::vector<GpuSnapshot> snapshots ABSL_GUARDED_BY(mutex);
  std::vector<std::string> said ABSL_GUARDED_BY(mutex);
  std::unique_ptr<GpuMonitor> monitor;
};

TEST_F(MonitorTest, ASnapshotIsNeverOlderThanItsRequest) {
  node.Say("gpu GPU-a\ngpu GPU-b\n");
  Start();
  for (int round = 1; round <= 20; ++round) {
    node.Say(absl::StrCat("gpu GPU-a used=", round, "\ngpu GPU-b\n"));
    const GpuSnapshot snapshot = Await(monitor->Probe());
    ASSERT_EQ(snapshot.gpus.size(), 2u);
    EXPECT_EQ(snapshot.gpus[0].used_bytes, round);
  }
}

TEST_F(MonitorTest, XidsComeBeforeTheSnapshotThatWasMadeAfterThem) {
  node.Say("gpu GPU-a\n");
  Start();
  Await(monitor->Probe());
  node.Say("gpu GPU-a\nxid 1 GPU-a 79\nxid 2 GPU-a 48\n");
  Await(monitor->Probe());
  MutexLock lock(&mutex);
  EXPECT_THAT(said, ElementsAre("snapshot", "xid 79", "xid 48", "snapshot"));
}

TEST_F(MonitorTest, WorksWithoutXids) {
  node.Say("gpu GPU-a\nno_events\n");
  Start();
  EXPECT_EQ(Await(monitor->Probe()).gpus.size(), 1u);
}

TEST_F(MonitorTest, LeavesADriverThatHangsBehind) {
  node.Say("gpu GPU-a\n");
  Start();
  node.Say("gpu GPU-a\nhang\n");
  monitor->Probe();
  poll(nullptr, 0, 200);
  const size_t before = snapshot_count();
  const absl::Duration begin = RealClock()->Monotonic();
  monitor.reset();
  EXPECT_LT(RealClock()->Monotonic() - begin, absl::Seconds(20));
  // It wakes up, and tells nobody.
  node.Say("gpu GPU-a\n");
  poll(nullptr, 0, 100);
  EXPECT_EQ(snapshot_count(), before);
}

}  // namespace
}  // namespace trainyard::daemon
