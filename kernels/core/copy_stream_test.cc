// On the CUDA device of the build, emulated or real.
#include "kernels/core/copy_stream.h"

#include <numeric>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/core/arena.h"
#include "kernels/core/simt/waits.h"

namespace trainyard::kernels {
namespace {

class CopyStreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const absl::Status status = CheckCudaDevice(); !status.ok()) GTEST_SKIP() << status;
    Arena counting = Arena::CountOnly(Device::kCuda);
    Allocate(counting);
    ASSERT_OK_AND_ASSIGN(arena_, Arena::Reserve(counting));
    Allocate(arena_);
    std::iota(from_.as<float>(), from_.as<float>() + kSize, 1.0f);
  }

  static constexpr int64_t kSize = 1000;
  void Allocate(Arena& arena) {
    from_ = arena.AllocateShared("test", DType::kF32, {kSize});
    on_device_ = arena.Allocate("test", DType::kF32, {10, kSize / 10});
    to_ = arena.AllocateShared("test", DType::kF32, {kSize});
  }

  Arena arena_ = Arena::CountOnly();
  TensorView from_, on_device_, to_;
};

TEST_F(CopyStreamTest, CopiesInOrderAndWithoutAWait) {
  Stream stream(Device::kCuda, 1);
  CopyStream copies;
  const int64_t waits = simt::WaitCount(), bytes = simt::CopiedBytes();
  copies.After(stream);
  copies.Copy(from_, on_device_);
  copies.Copy(on_device_, to_);
  copies.Copy(to_.Slice(0, 0), from_.Slice(0, 0));
  copies.Before(stream);
  EXPECT_EQ(simt::WaitCount(), waits);
  ASSERT_OK(stream.Synchronize());
  for (int64_t i = 0; i < kSize; ++i) ASSERT_EQ(to_.as<float>()[i], static_cast<float>(i + 1));
  if (DeviceBackend() == "emulated") {
    EXPECT_EQ(simt::CopiedBytes() - bytes, 2 * 4 * kSize);
  }
}

TEST_F(CopyStreamTest, TwoQueuesMeetInAStream) {
  Stream stream(Device::kCuda, 1);
  CopyStream in, out;
  in.Copy(from_, on_device_);
  in.Before(stream);
  out.After(stream);
  out.Copy(on_device_, to_);
  out.Before(stream);
  ASSERT_OK(stream.Synchronize());
  EXPECT_EQ(to_.as<float>()[kSize - 1], static_cast<float>(kSize));
}

TEST_F(CopyStreamTest, LengthsMustAgree) {
  CopyStream copies;
  EXPECT_DEATH(copies.Copy(from_, to_.Slice(0, 3)), "check failed");
}

}  // namespace
}  // namespace trainyard::kernels
