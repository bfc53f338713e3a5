#include "kernels/loss/kl_divergence.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::OpCase;
using testing::OpCases;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<double> LogSoftmax(std::vector<double> x) {
  const double max = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double value : x) sum += std::exp(value - max);
  for (double& value : x) value -= max + std::log(sum);
  return x;
}

double Reference(const std::vector<double>& p, const std::vector<double>& q, size_t k) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  std::vector<double> top_p, top_q;
  for (size_t i = 0; i < k; ++i) {
    top_p.push_back(p[order[i]]);
    top_q.push_back(q[order[i]]);
  }
  top_p = LogSoftmax(top_p);
  top_q = LogSoftmax(top_q);
  double sum = 0;
  for (size_t i = 0; i < k; ++i) sum += std::exp(top_p[i]) * (top_p[i] - top_q[i]);
  return sum;
}

std::vector<double> Divergences(const TensorView& p, const TensorView& q, int64_t top_k = 0) {
  testing::TestStream stream(1);
  HostTensor out = HostTensor::Filled(DType::kF32, {p.dim(0)}, 77);
  KlDivergence({.p_logits = p, .q_logits = q, .divergences = out, .top_k = top_k}, stream);
  return out.ToDoubles();
}

class KlDivergenceTest : public ::testing::TestWithParam<OpCase> {
 protected:
  DType dtype_ = GetParam().dtype;
  int64_t rows_ = GetParam().dim(0);
  int64_t vocab_size_ = GetParam().dim(1);
  HostTensor p_ = HostTensor::Normal(dtype_, {rows_, vocab_size_}, 1, 3.0);
  HostTensor q_ = HostTensor::Normal(dtype_, {rows_, vocab_size_}, 2, 3.0);
};

TEST_P(KlDivergenceTest, MatchesDoubleReferenceForAllAndForTheTop) {
  const std::vector<double> p = p_.ToDoubles(), q = q_.ToDoubles();
  for (const int64_t top_k : {int64_t{0}, int64_t{1}, std::min<int64_t>(10, vocab_size_), vocab_size_}) {
    std::vector<double> expected;
    for (int64_t row = 0; row < rows_; ++row) {
      const auto first = row * vocab_size_;
      expected.push_back(Reference({p.begin() + first, p.begin() + first + vocab_size_},
                                   {q.begin() + first, q.begin() + first + vocab_size_},
                                   static_cast<size_t>(top_k == 0 ? vocab_size_ : top_k)));
    }
    EXPECT_THAT(Divergences(p_, q_, top_k), AllNear(expected, {1e-5, 1e-5})) << "top_k " << top_k;
  }
}

TEST_P(KlDivergenceTest, OfEqualRowsIsExactlyZero) {
  EXPECT_EQ(Divergences(p_, p_), std::vector<double>(static_cast<size_t>(rows_), 0.0));
}

TEST_P(KlDivergenceTest, ThreadCountShowsInNoBit) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    HostTensor out(DType::kF32, {rows_});
    KlDivergence({.p_logits = p_, .q_logits = q_, .divergences = out}, stream);
    return out.Bytes();
  });
}

INSTANTIATE_TEST_SUITE_P(All, KlDivergenceTest,
                         ::testing::ValuesIn(OpCases({{1, 1}, {3, 2}, {4, 31}, {2, 32}, {5, 129}, {3, 9001}})),
                         testing::OpCaseName);

// Evidence 6: p = (0.5, 0.5), q = (0.9, 0.1).
TEST(KlDivergenceValues, IsNotSymmetric) {
  const HostTensor p = HostTensor::Of(DType::kF32, {1, 2}, {0, 0});
  const HostTensor q = HostTensor::Of(DType::kF32, {1, 2}, {std::log(0.9), std::log(0.1)});
  EXPECT_NEAR(Divergences(p, q)[0], 0.5108, 5e-5);
  EXPECT_NEAR(Divergences(q, p)[0], 0.3681, 5e-5);
}

// A shift of all logits of a row changes nothing, however large.
TEST(KlDivergenceValues, LivesThroughHugeLogits) {
  const HostTensor p = HostTensor::Of(DType::kF32, {2, 2}, {1e30, 1e30, -1e4, -1e4});
  const HostTensor q = HostTensor::Of(DType::kF32, {2, 2}, {-1e30, -1e30, 1e4, 1e4});
  EXPECT_EQ(Divergences(p, q), std::vector<double>({0, 0}));
}

TEST(KlDivergenceValues, WordsThatAreRuledOut) {
  const HostTensor p = HostTensor::Of(DType::kF32, {1, 3}, {0, 0, -kInfinity});
  const HostTensor q = HostTensor::Of(DType::kF32, {1, 3}, {0, 0, 0});
  EXPECT_NEAR(Divergences(p, q)[0], std::log(1.5), 1e-6);  // log (1/2) / (1/3)
  EXPECT_EQ(Divergences(q, p)[0], kInfinity);
}

TEST(KlDivergenceValues, ANanIsNotHidden) {
  HostTensor p = HostTensor::Normal(DType::kF32, {1, 70}, 1);
  const HostTensor q = HostTensor::Normal(DType::kF32, {1, 70}, 2);
  for (const double bad : {std::nan(""), kInfinity}) {
    for (const int64_t place : {0, 40, 69}) {
      HostTensor damaged = p.Copy();
      damaged.as<float>()[place] = static_cast<float>(bad);
      EXPECT_TRUE(std::isnan(Divergences(damaged, q)[0])) << bad << " at " << place;
      EXPECT_TRUE(std::isnan(Divergences(q, damaged)[0])) << bad << " at " << place;
    }
    HostTensor damaged = p.Copy();
    damaged.as<float>()[3] = std::nanf("");
    EXPECT_TRUE(std::isnan(Divergences(damaged, q, 5)[0]));
  }
}

// Of equal logits the first words are the top.
TEST(KlDivergenceValues, TiesGoToTheLowerIndex) {
  const HostTensor p = HostTensor::Of(DType::kF32, {1, 4}, {1, 2, 1, 1});
  const HostTensor q = HostTensor::Of(DType::kF32, {1, 4}, {5, 0, 0, 9});
  EXPECT_NEAR(Divergences(p, q, 2)[0], Reference({1, 2}, {5, 0}, 2), 1e-5);
}

}  // namespace
}  // namespace trainyard::kernels
