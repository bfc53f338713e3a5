#include "worker/runner/health.h"

#include <limits>
#include <vector>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/rpc/error_details.h"

namespace trainyard::runner {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<float> Product(int64_t extent) {
  std::vector<float> c(static_cast<size_t>(extent * extent));
  for (int64_t row = 0; row < extent; ++row) {
    for (int64_t col = 0; col < extent; ++col) {
      int sum = 0;
      for (int64_t k = 0; k < extent; ++k) sum += internal::ElementA(row, k) * internal::ElementB(k, col);
      c[static_cast<size_t>(row * extent + col)] = static_cast<float>(sum);
    }
  }
  return c;
}

// One wrong number, wherever it is, and whatever little it is wrong by.
TEST(FirstWrongRowTest, NoticesAnyNumberThatCounts) {
  constexpr int64_t kExtent = 33;
  std::vector<float> c = Product(kExtent);
  EXPECT_EQ(internal::FirstWrongRow(c.data(), kExtent), -1);
  for (int64_t i = 0; i < kExtent * kExtent; i += 17) {
    if (i % kExtent % 13 == 6) continue;  // weight 0: one column in 13
    const float right = c[static_cast<size_t>(i)];
    for (const float wrong : {right + 1, right - 0.5f, std::numeric_limits<float>::quiet_NaN()}) {
      c[static_cast<size_t>(i)] = wrong;
      EXPECT_EQ(internal::FirstWrongRow(c.data(), kExtent), i / kExtent);
    }
    c[static_cast<size_t>(i)] = right;
  }
  std::swap(c[3 * kExtent], c[3 * kExtent + 1]);
  EXPECT_EQ(internal::FirstWrongRow(c.data(), kExtent), 3);
}

// A matrix that is all zeros, or another one of its kind, would make a check that passes whatever is computed.
TEST(FirstWrongRowTest, ZerosAreWrong) {
  EXPECT_EQ(internal::FirstWrongRow(std::vector<float>(64 * 64).data(), 64), 0);
}

TEST(TryDeviceTest, IsNothingOnTheCpuAndPassesOnTheDeviceOfTheBuild) {
  EXPECT_OK(TryDevice(kernels::Device::kCpu));
  if (const absl::Status status = kernels::CheckCudaDevice(); !status.ok()) {
    EXPECT_EQ(TryDevice(kernels::Device::kCuda), status);
    GTEST_SKIP() << status;
  }
  EXPECT_OK(TryDevice(kernels::Device::kCuda));
}

TEST(TryDiskTest, LeavesNothingBehind) {
  const TempDir dir;
  EXPECT_OK(TryDisk(dir.path()));
  EXPECT_OK(CheckRoom(dir.path(), 1 << 20));
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> names, ListDir(dir.path()));
  EXPECT_THAT(names, IsEmpty());
}

TEST(TryDiskTest, SaysWhatIsMissing) {
  const TempDir dir;
  const absl::Status full = CheckRoom(dir.path(), int64_t{1} << 60);
  EXPECT_THAT(full, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("a checkpoint takes 1152921504606846976")));
  EXPECT_EQ(GetErrorReason(full), "DISK_FULL");
  const absl::Status gone = TryDisk(dir.Join("none"));
  EXPECT_THAT(gone, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("none")));
  EXPECT_EQ(GetErrorReason(gone), "DISK_UNHEALTHY");
}

TEST(TryDiskTest, NoticesAFolderThatTakesNoFiles) {
  const absl::Status refused = TryDisk("/proc");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("/proc")));
}

}  // namespace
}  // namespace trainyard::runner
