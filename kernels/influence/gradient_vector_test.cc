#include "kernels/influence/gradient_vector.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;
using Rule = ScaleGradientArgs::Rule;

float* Data(const HostTensor& tensor) {
  return static_cast<float*>(tensor.view().data());
}

HostTensor Elements(const std::vector<uint32_t>& numbers) {
  HostTensor tensor(DType::kU32, {static_cast<int64_t>(numbers.size())});
  for (size_t i = 0; i < numbers.size(); ++i) static_cast<uint32_t*>(tensor.view().data())[i] = numbers[i];
  return tensor;
}

const std::vector<uint32_t> kChosen = {0, 3, 4, 9, 20, 599, 600, 699};

TEST(GradientVectorTest, ChosenElementsAreGatheredInOrder) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Normal(DType::kF32, {700}, 1), chosen = Elements(kChosen), y(DType::kF32, {700});
  GatherElements({.x = Data(x), .elements = static_cast<uint32_t*>(chosen.view().data()), .count = 8, .y = Data(y)},
                 stream);
  for (size_t i = 0; i < kChosen.size(); ++i) EXPECT_EQ(y.as<float>()[i], x.as<float>()[kChosen[i]]);
  EXPECT_EQ(y.as<float>()[8], 0);
  GatherElements({.x = Data(x), .count = 650, .y = Data(y)}, stream);
  for (size_t i = 0; i < 650; ++i) EXPECT_EQ(y.as<float>()[i], x.as<float>()[i]);
  EXPECT_EQ(y.as<float>()[650], 0);
}

TEST(GradientVectorTest, ElementsMoveFromTheirBaseAndComeBack) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Normal(DType::kF32, {700}, 1), before = x.Copy(), chosen = Elements(kChosen);
  const HostTensor base(DType::kF32, {8}), direction = HostTensor::Normal(DType::kF32, {8}, 2);
  const auto* const elements = static_cast<uint32_t*>(chosen.view().data());
  GatherElements({.x = Data(x), .elements = elements, .count = 8, .y = Data(base)}, stream);
  const auto move = [&](double step) {
    MoveElements({.base = Data(base),
                  .direction = Data(direction),
                  .step = step,
                  .elements = elements,
                  .count = 8,
                  .x = Data(x)},
                 stream);
  };
  move(0.5);
  move(-0.25);  // from the base, not from where it was
  for (size_t i = 0; i < kChosen.size(); ++i) {
    EXPECT_EQ(x.as<float>()[kChosen[i]], before.as<float>()[kChosen[i]] - 0.25f * direction.as<float>()[i]);
  }
  EXPECT_EQ(x.as<float>()[1], before.as<float>()[1]);
  move(0);
  EXPECT_EQ(x.Bytes(), before.Bytes());
}

// Both rules beside their formulas; what is not chosen of m and v is not read.
TEST(GradientVectorTest, RulesScaleByTheMomentsOfTheChosen) {
  testing::TestStream stream(1);
  for (const Rule rule : {Rule::kFrozen, Rule::kLess}) {
    const HostTensor gradient = HostTensor::Normal(DType::kF32, {8}, 1), y = gradient.Copy(),
                     m = HostTensor::Filled(DType::kF32, {700}, std::numeric_limits<double>::quiet_NaN()),
                     v = HostTensor::Filled(DType::kF32, {700}, std::numeric_limits<double>::quiet_NaN()),
                     chosen = Elements(kChosen);
    for (const uint32_t element : kChosen) {
      m.as<float>()[element] = 0.01f * static_cast<float>(element % 7) - 0.02f;
      v.as<float>()[element] = 0.1f + 0.01f * static_cast<float>(element % 5);
    }
    ScaleGradientArgs args;
    args.rule = rule;
    args.beta1 = 0.9;
    args.beta2 = 0.99;
    args.epsilon = 1e-3;
    args.first = 0.1 / (1 - 0.9 * 0.9);
    args.correction = 1 - 0.99 * 0.99;
    args.m = Data(m);
    args.v = Data(v);
    args.elements = static_cast<uint32_t*>(chosen.view().data());
    args.count = 8;
    args.y = Data(y);
    ScaleGradient(args, stream);
    for (size_t i = 0; i < kChosen.size(); ++i) {
      const double g = double{gradient.as<float>()[i]}, mean = double{m.as<float>()[kChosen[i]]},
                   square = double{v.as<float>()[kChosen[i]]};
      const double expected = rule == Rule::kFrozen
                                  ? 0.1 / 0.19 / (std::sqrt(square / 0.0199) + 1e-3) * g
                                  : (0.9 * mean + 0.1 * g) / std::sqrt(0.99 * square + 0.01 * g * g + 1e-3);
      EXPECT_NEAR(double{y.as<float>()[i]}, expected, 1e-6 * std::abs(expected)) << i;
    }
  }
}

struct NormResult {
  double norm;
  std::vector<double> divided;
};

NormResult NormOf(const HostTensor& x, const double* gate_value, bool keeps_length, Stream& stream) {
  const int64_t count = x.view().size();
  const HostTensor numbers(DType::kU8, {16}),
      workspace(DType::kU8, {std::max<int64_t>(1, VectorNormWorkspace(count)) * 8}), y = x.Copy();
  auto* const doubles = static_cast<double*>(numbers.view().data());
  if (gate_value != nullptr) doubles[1] = *gate_value;
  VectorNorm({.x = Data(y),
              .count = count,
              .gate = gate_value != nullptr ? doubles + 1 : nullptr,
              .norm = doubles,
              .workspace = static_cast<double*>(workspace.view().data())},
             stream);
  DivideByNorm({.x = Data(y), .count = count, .norm = doubles, .keeps_length = keeps_length}, stream);
  NormResult result{0, y.ToDoubles()};
  result.norm = doubles[0];
  return result;
}

// Several partial sums, the last of a part of a block.
TEST(GradientVectorTest, VectorsGetUnitNorm) {
  testing::TestStream stream(1);
  for (const int64_t count : {1, 300, 70'000}) {
    const HostTensor x = HostTensor::Normal(DType::kF32, {count}, 5, 3);
    double squares = 0;
    for (const double value : x.ToDoubles()) squares += value * value;
    const NormResult unit = NormOf(x, nullptr, false, stream), same = NormOf(x, nullptr, true, stream);
    EXPECT_NEAR(unit.norm, std::sqrt(squares), 1e-13 * std::sqrt(squares));
    EXPECT_EQ(same.norm, unit.norm);
    EXPECT_EQ(same.divided, x.ToDoubles());
    for (size_t i = 0; i < unit.divided.size(); ++i) {
      EXPECT_EQ(unit.divided[i], static_cast<float>(same.divided[i]) * static_cast<float>(1 / unit.norm));
    }
  }
}

// Zeros, infinities, NaNs and a gate of 0 give norm 0 and zeros, not NaN.
TEST(GradientVectorTest, WhatCannotBeNormalisedBecomesZero) {
  testing::TestStream stream(1);
  const double open = 3, closed = 0;
  for (const double bad :
       {0.0, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN(), 1.0}) {
    HostTensor x = HostTensor::Filled(DType::kF32, {300}, bad == 1 ? 1 : 0);
    x.as<float>()[123] = static_cast<float>(bad);
    for (const bool keeps_length : {false, true}) {
      const NormResult result = NormOf(x, bad == 1 ? &closed : &open, keeps_length, stream);
      EXPECT_EQ(result.norm, 0);
      for (const double value : result.divided) EXPECT_EQ(value, 0);
    }
  }
  EXPECT_GT(NormOf(HostTensor::Filled(DType::kF32, {3}, 1), &open, false, stream).norm, 0);
}

TEST(GradientVectorTest, ThreadsChangeNoBit) {
  testing::ExpectSameBitsForAnyThreadCount([](Stream& stream) {
    const HostTensor x = HostTensor::Normal(DType::kF32, {70'000}, 5), y(DType::kF32, {70'000});
    const HostTensor norm(DType::kU8, {8}), workspace(DType::kU8, {VectorNormWorkspace(70'000) * 8});
    GatherElements({.x = Data(x), .count = 70'000, .y = Data(y)}, stream);
    VectorNorm({.x = Data(y),
                .count = 70'000,
                .norm = static_cast<double*>(norm.view().data()),
                .workspace = static_cast<double*>(workspace.view().data())},
               stream);
    DivideByNorm({.x = Data(y), .count = 70'000, .norm = static_cast<double*>(norm.view().data())}, stream);
    return y.Bytes();
  });
}

}  // namespace
}  // namespace trainyard::kernels
