// Training on the CUDA device of the build beside training on the CPU. On the emulated device the guard
// (kernels/core/simt/guard.h) also watches that the host touches no memory that the device may be using, and that
// kernels get no memory of the host.
#include <cstdlib>
#include <string>

#include "gtest/gtest.h"
#include "kernels/core/device.h"
#include "kernels/core/simt/emulator.h"
#include "worker/train/testing/tiny_run.h"

namespace trainyard::train {
namespace {

using kernels::Device;
using testing::TinyDataset;
using testing::TinyTraining;

struct DeviceCase {
  std::string name;
  kernels::DType dtype = kernels::DType::kF32;
  spec::LinearOptions linear = {};
  spec::OptimizerOptions optimizer = spec::AdamWOptions{};
  double tolerance = 0;  // of a loss around 5.5
};

class DeviceTrainingTest : public ::testing::TestWithParam<DeviceCase> {
 protected:
  static void SetUpTestSuite() {
    if (!kernels::CheckCudaDevice().ok()) return;
    setenv("TRAINYARD_SIMT_GUARD", "1", /*overwrite=*/1);
  }
  void SetUp() override {
    if (const absl::Status status = kernels::CheckCudaDevice(); !status.ok()) GTEST_SKIP() << status;
  }

  TrainerOptions Options(Device device) const {
    TrainerOptions options = testing::TinyTrainerOptions(GetParam().optimizer);
    options.dtype = GetParam().dtype;
    options.training.linear = GetParam().linear;
    options.training.accumulation = 2;
    if (GetParam().linear.scheme.index() > 2) {  // groups of up to 128 in every direction
      options.config.hidden_size = options.config.intermediate_size = 128;
      options.config.head_dim = 32;
      options.config.kv_heads = 4;
      options.config.layers = 1;
      options.training.micro_batch = 4;
    }
    options.device = device;
    return options;
  }

  const TinyDataset dataset_;
};

TEST_P(DeviceTrainingTest, LossesAreThoseOfTheCpu) {
  TinyTraining cpu(dataset_, Options(Device::kCpu)), device(dataset_, Options(Device::kCuda));
  EXPECT_EQ(cpu.trainer->memory_plan(), device.trainer->memory_plan());
  const std::vector<double> expected = cpu.Steps(4), losses = device.Steps(4);
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(losses[i], expected[i], GetParam().tolerance) << "step " << i;
  EXPECT_NE(losses.front(), losses.back());
  const auto never = []() -> absl::StatusOr<bool> { return false; };
  const absl::StatusOr<double> cpu_loss = cpu.trainer->Evaluate(*cpu.loader, 2, never);
  const absl::StatusOr<double> device_loss = device.trainer->Evaluate(*device.loader, 2, never);
  ASSERT_TRUE(cpu_loss.ok() && device_loss.ok());
  EXPECT_NEAR(*device_loss, *cpu_loss, GetParam().tolerance);
}

// Neither the order in which an emulated device runs its threads, nor recomputing, nor a restore shows in a bit.
TEST_P(DeviceTrainingTest, SameBitsInEveryRun) {
  TinyTraining undisturbed(dataset_, Options(Device::kCuda));
  const std::vector<double> losses = undisturbed.Steps(4);

  TrainerOptions recomputing = Options(Device::kCuda);
  recomputing.training.recompute = spec::Recompute::kBlock;
  TinyTraining first(dataset_, recomputing);
  simt::SetOrder(simt::Order::kBackward);
  const std::vector<double> begin = first.Steps(2);
  simt::SetOrder(simt::Order::kForward);
  EXPECT_EQ(begin, std::vector<double>(losses.begin(), losses.begin() + 2));

  TinyTraining resumed(dataset_, Options(Device::kCuda));
  resumed.RestoreFrom(first);
  EXPECT_EQ(resumed.Steps(2), std::vector<double>(losses.begin() + 2, losses.end()));
  EXPECT_TRUE(undisturbed.StateBytes() == resumed.StateBytes());
}

spec::LinearOptions Linear(decltype(spec::LinearOptions::scheme) scheme) {
  spec::LinearOptions options;
  options.scheme = scheme;
  return options;
}

std::vector<DeviceCase> Cases() {
  using kernels::DType;
  return {
      {.name = "f32", .tolerance = 2e-5},
      {.name = "bf16", .dtype = DType::kBF16, .tolerance = 2e-2},
      {.name = "fp8", .dtype = DType::kBF16, .linear = Linear(spec::LinearFp8{}), .tolerance = 5e-2},
      {.name = "quest", .linear = Linear(spec::LinearQuest{}), .tolerance = 5e-2},
      {.name = "quartet", .linear = Linear(spec::LinearQuartet{}), .tolerance = 5e-2},
      {.name = "quartet2", .linear = Linear(spec::LinearQuartet2{}), .tolerance = 5e-2},
      {.name = "sgd", .optimizer = spec::SgdOptions{}, .tolerance = 2e-5},
  };
}

INSTANTIATE_TEST_SUITE_P(All, DeviceTrainingTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace trainyard::train
