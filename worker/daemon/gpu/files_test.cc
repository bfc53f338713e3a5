// What the daemon keeps on disk about GPUs: faults for itself, jobs for dcgm-exporter.
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "worker/daemon/gpu/fault_log.h"
#include "worker/daemon/gpu/job_mapping.h"

namespace trainyard::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::Time kWall = absl::UnixEpoch();

TEST(FaultLogTest, FaultsOutliveTheDaemonAndEndWithTheBoot) {
  TempDir dir;
  {
    ASSERT_OK_AND_ASSIGN(FaultLog log, FaultLog::Open(dir.Join("faults"), "boot-1"));
    EXPECT_OK(log.Add({.uuid = "GPU-a", .xid = 79}, kWall));
    EXPECT_OK(log.Add({.uuid = "GPU-a", .xid = 48}, kWall));
    EXPECT_OK(log.Add({.uuid = "GPU-a", .xid = 79}, kWall));
    EXPECT_OK(log.Add({.uuid = "GPU-b", .xid = 95}, kWall));
  }
  {
    ASSERT_OK_AND_ASSIGN(const FaultLog log, FaultLog::Open(dir.Join("faults"), "boot-1"));
    EXPECT_THAT(log.xids("GPU-a"), ElementsAre(48, 79));
    EXPECT_THAT(log.xids("GPU-b"), ElementsAre(95));
    EXPECT_THAT(log.xids("GPU-c"), IsEmpty());
  }
  ASSERT_OK_AND_ASSIGN(const FaultLog rebooted, FaultLog::Open(dir.Join("faults"), "boot-2"));
  EXPECT_THAT(rebooted.xids("GPU-a"), IsEmpty());
  EXPECT_FALSE(BootId().empty());
}

TEST(FaultLogTest, ADamagedFileIsNamed) {
  TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir.Join("faults"), "boot b\nGPU-a 79 0\nGPU-a x 0\n"));
  EXPECT_THAT(FaultLog::Open(dir.Join("faults"), "b"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("line 3: 'GPU-a x 0'")));
  ASSERT_OK(WriteFileAtomic(dir.Join("faults"), "nonsense"));
  EXPECT_THAT(FaultLog::Open(dir.Join("faults"), "b"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("faults")));
}

// The names and lines that dcgm-exporter reads: the index of the GPU, one job id a line.
TEST(JobMappingTest, OneFileAGpuWhileItHasAJob) {
  TempDir dir;
  const std::string folder = dir.Join("map");
  ASSERT_OK(MakeDirs(folder));
  for (const char* name : {"0", "1", "2", "1.0123.tmp", "2.0123.tmp", "notes.tmp"}) {
    ASSERT_OK(WriteFileAtomic(JoinPath(folder, name), "old\n"));
  }
  ASSERT_OK_AND_ASSIGN(const JobMapping mapping, JobMapping::Create(folder, {0, 1}));
  // Those of GPU 2 belong to somebody else.
  EXPECT_THAT(*ListDir(folder), ElementsAre("2", "2.0123.tmp", "notes.tmp"));
  EXPECT_OK(mapping.Set(1, "job-7"));
  EXPECT_EQ(*ReadFile(JoinPath(folder, "1")), "job-7\n");
  EXPECT_OK(mapping.Set(1, "job-8"));
  EXPECT_EQ(*ReadFile(JoinPath(folder, "1")), "job-8\n");
  EXPECT_OK(mapping.Clear(1));
  EXPECT_OK(mapping.Clear(1));
  EXPECT_THAT(*ListDir(folder), ElementsAre("2", "2.0123.tmp", "notes.tmp"));
}

TEST(JobMappingTest, WithoutAFolderNothingIsWritten) {
  ASSERT_OK_AND_ASSIGN(const JobMapping mapping, JobMapping::Create("", {0}));
  EXPECT_OK(mapping.Set(0, "job"));
  EXPECT_OK(mapping.Clear(0));
}

}  // namespace
}  // namespace trainyard::daemon
