#include "kernels/loss/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/finite_difference.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::OpCase;
using testing::OpCases;
using testing::ToleranceFor;

struct Reference {
  std::vector<double> losses, dlogits;
};

Reference ReferenceCrossEntropy(const std::vector<double>& logits, const std::vector<double>& targets,
                                double grad_scale) {
  Reference result;
  const size_t vocab_size = logits.size() / targets.size();
  result.dlogits.assign(logits.size(), 0.0);
  for (size_t row = 0; row < targets.size(); ++row) {
    const double* x = &logits[row * vocab_size];
    if (targets[row] == kIgnoreTarget) {
      result.losses.push_back(0.0);
      continue;
    }
    const double max = *std::max_element(x, x + vocab_size);
    double sum = 0;
    for (size_t j = 0; j < vocab_size; ++j) sum += std::exp(x[j] - max);
    const double lse = max + std::log(sum);
    const size_t target = static_cast<size_t>(targets[row]);
    result.losses.push_back(lse - x[target]);
    for (size_t j = 0; j < vocab_size; ++j) {
      result.dlogits[row * vocab_size + j] = (std::exp(x[j] - lse) - (j == target ? 1.0 : 0.0)) * grad_scale;
    }
  }
  return result;
}

struct Tensors {
  HostTensor logits, targets, losses;

  Tensors(DType dtype, int64_t rows, int64_t vocab_size)
      : logits(HostTensor::Normal(dtype, {rows, vocab_size}, 1, 3.0)),
        targets(testing::RandomTokens(rows, vocab_size, 2)),
        losses(HostTensor::Filled(DType::kF32, {rows}, 77)) {}

  CrossEntropyArgs args(float grad_scale = 1.0f) const {
    return {.logits = logits, .targets = targets, .losses = losses, .grad_scale = grad_scale};
  }
};

class CrossEntropyTest : public ::testing::TestWithParam<OpCase> {
 protected:
  DType dtype_ = GetParam().dtype;
  int64_t rows_ = GetParam().dim(0);
  int64_t vocab_size_ = GetParam().dim(1);
  testing::TestStream stream_{1};
};

TEST_P(CrossEntropyTest, ForwardMatchesDoubleReferenceAndKeepsLogits) {
  Tensors x(dtype_, rows_, vocab_size_);
  const std::vector<double> logits = x.logits.ToDoubles();
  CrossEntropyForward(x.args(), stream_);
  const Reference expected = ReferenceCrossEntropy(logits, x.targets.ToDoubles(), 1);
  EXPECT_THAT(x.losses.ToDoubles(), AllNear(expected.losses, ToleranceFor(DType::kF32)));
  EXPECT_EQ(x.logits.ToDoubles(), logits);
}

TEST_P(CrossEntropyTest, ForwardBackwardMatchesDoubleReference) {
  Tensors x(dtype_, rows_, vocab_size_);
  if (rows_ > 1) x.targets.as<int32_t>()[1] = kIgnoreTarget;
  const Reference expected = ReferenceCrossEntropy(x.logits.ToDoubles(), x.targets.ToDoubles(), 0.125);
  CrossEntropyForwardBackward(x.args(0.125f), stream_);
  EXPECT_THAT(x.losses.ToDoubles(), AllNear(expected.losses, ToleranceFor(DType::kF32)));
  EXPECT_THAT(x.logits.ToDoubles(), AllNear(expected.dlogits, ToleranceFor(dtype_)));
}

TEST_P(CrossEntropyTest, ForwardAndBackwardReportTheSameLosses) {
  Tensors x(dtype_, rows_, vocab_size_);
  CrossEntropyForward(x.args(), stream_);
  const std::vector<uint8_t> losses = x.losses.Bytes();
  CrossEntropyForwardBackward(x.args(), stream_);
  EXPECT_EQ(x.losses.Bytes(), losses);
}

TEST_P(CrossEntropyTest, ThreadCountShowsInNoBit) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    Tensors x(dtype_, rows_, vocab_size_);
    CrossEntropyForwardBackward(x.args(), stream);
    std::vector<uint8_t> bytes = x.logits.Bytes();
    const std::vector<uint8_t> losses = x.losses.Bytes();
    bytes.insert(bytes.end(), losses.begin(), losses.end());
    return bytes;
  });
}

// One word; below, at and above a vector; more than one block of the sum (4096); in f32, more than a GPU's shared
// memory holds, with rows that begin anywhere.
INSTANTIATE_TEST_SUITE_P(
    All, CrossEntropyTest,
    ::testing::ValuesIn(
        OpCases({{1, 1}, {3, 2}, {3, 7}, {2, 15}, {2, 16}, {5, 129}, {7, 1000}, {2, 4096}, {3, 9001}, {2, 60001}})),
    testing::OpCaseName);

TEST(CrossEntropyGradient, MatchesFiniteDifferences) {
  testing::TestStream stream(1);
  Tensors x(DType::kF32, 3, 5);
  std::vector<double> logits = x.logits.ToDoubles();
  const std::vector<double> targets = x.targets.ToDoubles();
  const std::vector<double> expected = testing::FiniteDifferences(logits, [&] {
    const Reference reference = ReferenceCrossEntropy(logits, targets, 1);
    return 0.5 * (reference.losses[0] + reference.losses[1] + reference.losses[2]);
  });
  CrossEntropyForwardBackward(x.args(0.5f), stream);
  EXPECT_THAT(x.logits.ToDoubles(), AllNear(expected, ToleranceFor(DType::kF32)));
}

// ln V for equal logits, whatever their size: 1e30 overflows exp, and the maximum is on either side of zero.
TEST(CrossEntropyExtremes, HugeEqualLogitsGiveLogOfVocabulary) {
  testing::TestStream stream(1);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (double logit : {-1e30, -1e4, 0.0, 1e4, 1e30}) {
      Tensors x(dtype, 2, 1000);
      x.logits = HostTensor::Filled(dtype, {2, 1000}, logit);
      CrossEntropyForwardBackward(x.args(), stream);
      EXPECT_THAT(x.losses.ToDoubles(), AllNear({std::log(1000.0), std::log(1000.0)}, ToleranceFor(DType::kF32)));
    }
  }
}

// A certain and wrong prediction: the loss is the distance of the logits and the gradient is -1 and 1.
TEST(CrossEntropyExtremes, CertainAndWrong) {
  testing::TestStream stream(1);
  Tensors x(DType::kF32, 1, 3);
  x.logits = HostTensor::Of(DType::kF32, {1, 3}, {-2000, 1000, 0});
  x.targets = HostTensor::Of(DType::kI32, {1}, {0});
  CrossEntropyForwardBackward(x.args(), stream);
  EXPECT_EQ(x.losses.ToDoubles(), std::vector<double>({3000}));
  EXPECT_EQ(x.logits.ToDoubles(), std::vector<double>({-1, 1, 0}));
}

// A masked row stays silent even where the logits are not numbers.
TEST(CrossEntropyMask, IgnoredRowsHaveNoLossAndNoGradient) {
  testing::TestStream stream(1);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    Tensors x(dtype, 3, 33);
    x.logits = HostTensor::Filled(dtype, {3, 33}, std::numeric_limits<double>::quiet_NaN());
    x.targets = HostTensor::Of(DType::kI32, {3}, {kIgnoreTarget, kIgnoreTarget, kIgnoreTarget});
    CrossEntropyForwardBackward(x.args(), stream);
    EXPECT_EQ(x.losses.ToDoubles(), std::vector<double>(3, 0.0));
    EXPECT_EQ(x.logits.ToDoubles(), std::vector<double>(99, 0.0));
  }
}

// Wherever the bad logit lies: in the first vector, in a later one, in the tail.
TEST(CrossEntropyNan, OneBadLogitMakesTheLossNan) {
  testing::TestStream stream(1);
  for (double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    for (int64_t place : {0, 3, 17, 40, 41}) {
      Tensors x(DType::kF32, 1, 42);
      x.logits.as<float>()[place] = static_cast<float>(bad);
      CrossEntropyForward(x.args(), stream);
      EXPECT_TRUE(std::isnan(x.losses.ToDoubles()[0])) << bad << " at " << place;
    }
  }
}

// A word that is ruled out by -inf costs nothing and gets no gradient.
TEST(CrossEntropyExtremes, MinusInfinityIsProbabilityZero) {
  testing::TestStream stream(1);
  Tensors x(DType::kF32, 1, 3);
  x.logits = HostTensor::Of(DType::kF32, {1, 3}, {1, -std::numeric_limits<double>::infinity(), 1});
  x.targets = HostTensor::Of(DType::kI32, {1}, {0});
  CrossEntropyForwardBackward(x.args(), stream);
  EXPECT_THAT(x.losses.ToDoubles(), AllNear({std::log(2.0)}, ToleranceFor(DType::kF32)));
  EXPECT_THAT(x.logits.ToDoubles(), AllNear({-0.5, 0, 0.5}, ToleranceFor(DType::kF32)));
}

// A weight multiplies its row's loss and gradient and nothing else; 0 takes a row out.
TEST(CrossEntropyWeightsTest, ScaleLossAndGradientOfTheirRow) {
  testing::TestStream stream(1);
  const HostTensor targets = HostTensor::Of(DType::kI32, {3}, {1, 4, 0});
  const HostTensor weights = HostTensor::Of(DType::kF32, {3}, {1, 2.5, 0});
  HostTensor plain = HostTensor::Normal(DType::kF32, {3, 5}, 1), weighted = plain.Copy();
  const HostTensor losses(DType::kF32, {3}), weighted_losses(DType::kF32, {3});
  CrossEntropyForwardBackward({.logits = plain, .targets = targets, .losses = losses, .grad_scale = 0.5f}, stream);
  CrossEntropyForwardBackward(
      {.logits = weighted, .targets = targets, .losses = weighted_losses, .grad_scale = 0.5f, .weights = weights},
      stream);
  for (size_t row = 0; row < 3; ++row) {
    const double weight = weights.ToDoubles()[row];
    EXPECT_NEAR(weighted_losses.ToDoubles()[row], weight * losses.ToDoubles()[row], 1e-6);
    for (size_t i = row * 5; i < row * 5 + 5; ++i) {
      EXPECT_NEAR(weighted.ToDoubles()[i], weight * plain.ToDoubles()[i], 1e-6);
    }
  }
}

}  // namespace
}  // namespace trainyard::kernels
