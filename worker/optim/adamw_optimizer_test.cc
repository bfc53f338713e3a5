#include "worker/optim/adamw_optimizer.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::testing::HostTensor;
using ::testing::ElementsAre;

constexpr int64_t kCount = 700;  // six groups of 128, the last one short

struct SmallRun {
  SmallRun(spec::MomentType first, spec::MomentType second, uint64_t seed) : seed(seed) {
    spec::AdamWOptions options;
    options.first_moment = first;
    options.second_moment = second;
    Arena counting = Arena::CountOnly();
    MakeAdamWOptimizer(options, Parameters(), counting);
    plan = counting.plan();
    arena = std::make_unique<Arena>(*Arena::Reserve(counting.used_bytes()));
    optimizer = MakeAdamWOptimizer(options, Parameters(), *arena);
  }
  std::vector<OptimizerParameter> Parameters() const {
    std::vector<OptimizerParameter> parameters(2);
    for (size_t i = 0; i < 2; ++i) {
      parameters[i].name = i == 0 ? "a" : "b";
      parameters[i].index = static_cast<uint32_t>(i);
      parameters[i].weight = weights[i];
      parameters[i].gradient = gradient;
    }
    return parameters;
  }
  void Update(int64_t first, int64_t last) {
    kernels::Stream stream(1);
    for (int64_t update = first; update <= last; ++update) {
      optimizer->Update({.update = update, .learning_rate = 0.01, .seed = seed}, stream);
    }
  }
  std::vector<uint8_t> Bytes(size_t parameter) const { return weights[parameter].Bytes(); }

  uint64_t seed;
  HostTensor weights[2] = {HostTensor::Filled(DType::kF32, {kCount}, 1), HostTensor::Filled(DType::kF32, {kCount}, 1)};
  HostTensor gradient = HostTensor::Normal(DType::kF32, {kCount}, 3);
  kernels::MemoryPlan plan;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<Optimizer> optimizer;
};

TEST(AdamWOptimizerTest, MomentsTakeTheirFormatsBytesAndAreState) {
  const auto up = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
  using T = spec::MomentType;
  EXPECT_EQ(SmallRun(T::kFp32, T::kFp32, 1).plan.at("moments"), 2 * 2 * up(4 * kCount));
  EXPECT_EQ(SmallRun(T::kBf16, T::kBf16, 1).plan.at("moments"), 2 * 2 * up(2 * kCount));
  const SmallRun run(T::kE4M3, T::kBf16, 1);
  EXPECT_EQ(run.plan.at("moments"), 2 * (up(kCount) + up(4 * 6) + up(2 * kCount)));
  std::vector<std::string> names;
  for (const NamedTensor& tensor : run.optimizer->state()) names.push_back(tensor.name);
  EXPECT_THAT(names,
              ElementsAre("adamw.m/a", "adamw.m/b", "adamw.m_scales/a", "adamw.m_scales/b", "adamw.v/a", "adamw.v/b"));
  EXPECT_EQ(run.optimizer->state()[0].tensor.dtype(), DType::kF8E4M3);
  EXPECT_EQ(run.optimizer->state()[5].tensor.dtype(), DType::kBF16);
}

// Two parameters with equal weights and gradients stay equal in f32 and do not when their rounding is stochastic; the
// noise is the seed's and each update's own.
TEST(AdamWOptimizerTest, RoundingOfMomentsIsKeyedBySeedUpdateAndTensor) {
  using T = spec::MomentType;
  for (const auto& [first, second] : {std::pair{T::kFp32, T::kFp32}, {T::kBf16, T::kBf16}, {T::kE4M3, T::kFp32}}) {
    SmallRun one(first, second, 1), same(first, second, 1), other(first, second, 2);
    for (SmallRun* run : {&one, &same, &other}) run->Update(1, 5);
    EXPECT_EQ(one.Bytes(0), same.Bytes(0));
    if (first == T::kFp32) {
      EXPECT_EQ(one.Bytes(0), one.Bytes(1));
      EXPECT_EQ(one.Bytes(0), other.Bytes(0));
    } else {
      EXPECT_NE(one.Bytes(0), one.Bytes(1));
      EXPECT_NE(one.Bytes(0), other.Bytes(0));
    }
  }
}

}  // namespace
}  // namespace trainyard::optim
