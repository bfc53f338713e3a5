#include "kernels/optim/global_norm.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

struct Result {
  float norm;
  float clip_factor;
};

Result Norm(const std::vector<TensorView>& tensors, float max_norm, float grad_scale, Stream& stream) {
  const HostTensor norm = HostTensor::Filled(DType::kF32, {1}, 77);
  const HostTensor clip_factor = HostTensor::Filled(DType::kF32, {1}, 77);
  const HostTensor workspace(DType::kU8, {GlobalNormWorkspaceBytes(tensors)});
  GlobalNorm({.tensors = tensors,
              .grad_scale = grad_scale,
              .max_norm = max_norm,
              .norm = norm,
              .clip_factor = clip_factor,
              .workspace = workspace},
             stream);
  return {*norm.as<float>(), *clip_factor.as<float>()};
}

// Many sizes, an empty one among them, and one of several blocks of 32768; both dtypes.
std::vector<HostTensor> Gradients() {
  std::vector<HostTensor> tensors;
  uint64_t seed = 0;
  for (int64_t size : {1, 0, 15, 16, 17, 1000, 32768, 32769, 100003}) {
    tensors.push_back(HostTensor::Normal(DType::kF32, {size}, ++seed, 0.01));
    tensors.push_back(HostTensor::Normal(DType::kBF16, {size}, ++seed, 0.03));
  }
  return tensors;
}

std::vector<TensorView> Views(const std::vector<HostTensor>& tensors) {
  return {tensors.begin(), tensors.end()};
}

double ReferenceNorm(const std::vector<HostTensor>& tensors) {
  double sum = 0;
  for (const HostTensor& tensor : tensors) {
    for (double x : tensor.ToDoubles()) sum += x * x;
  }
  return std::sqrt(sum);
}

TEST(GlobalNorm, MatchesDoubleReference) {
  testing::TestStream stream(1);
  const std::vector<HostTensor> tensors = Gradients();
  const double expected = ReferenceNorm(tensors);
  EXPECT_NEAR(Norm(Views(tensors), 0, 1, stream).norm, expected, 1e-7 * expected);
  EXPECT_NEAR(Norm(Views(tensors), 0, 0.25f, stream).norm, 0.25 * expected, 1e-7 * expected);
}

TEST(GlobalNorm, ThreadCountShowsInNoBit) {
  const std::vector<HostTensor> tensors = Gradients();
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const float norm = Norm(Views(tensors), 0, 1, stream).norm;
    const auto* bytes = reinterpret_cast<const uint8_t*>(&norm);
    return std::vector<uint8_t>(bytes, bytes + sizeof(norm));
  });
}

// Norm 6, limit 1: 1/6. The squared norm would give 1/36 (methods/llmq.md, pitfall 1).
TEST(GlobalNorm, ClipsByTheTrueNorm) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {3}, {4, 4, 2});
  EXPECT_FLOAT_EQ(Norm({x}, 1, 1, stream).clip_factor, 1.0f / 6);
  EXPECT_FLOAT_EQ(Norm({x}, 3, 2, stream).clip_factor, 0.25f);  // of the scaled gradient's norm, 12
  EXPECT_EQ(Norm({x}, 6, 1, stream).clip_factor, 1.0f);
  EXPECT_EQ(Norm({x}, 7, 1, stream).clip_factor, 1.0f);
  EXPECT_EQ(Norm({x}, 0, 1, stream).clip_factor, 1.0f);
}

TEST(GlobalNorm, OfNothingIsZero) {
  testing::TestStream stream(2);
  EXPECT_EQ(Norm({}, 1, 1, stream).norm, 0.0f);
  EXPECT_EQ(Norm({}, 1, 1, stream).clip_factor, 1.0f);
}

// Squares of these leave float's range; f64 sums do not mind.
TEST(GlobalNorm, SquaresNeitherOverflowNorVanish) {
  testing::TestStream stream(1);
  for (double x : {3e30, 3e-30}) {
    const HostTensor tensor = HostTensor::Filled(DType::kF32, {10000}, x);
    EXPECT_FLOAT_EQ(Norm({tensor}, 0, 1, stream).norm, static_cast<float>(100 * x));
  }
}

TEST(GlobalNorm, BadGradientsShowAndDoNotClip) {
  testing::TestStream stream(1);
  for (double bad : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    HostTensor x = HostTensor::Filled(DType::kF32, {40000}, 1);
    x.as<float>()[39999] = static_cast<float>(bad);
    const Result result = Norm({x}, 1, 1, stream);
    EXPECT_FALSE(std::isfinite(result.norm));
    EXPECT_EQ(result.clip_factor, 1.0f);
  }
}

}  // namespace
}  // namespace trainyard::kernels
