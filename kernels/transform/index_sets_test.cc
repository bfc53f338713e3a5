#include "kernels/transform/index_sets.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/core/philox.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using testing::HostTensor;
using Values = std::vector<double>;

Values Top(const Values& scores, int64_t r) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {static_cast<int64_t>(scores.size())}, scores);
  const HostTensor indices = HostTensor::Of(DType::kI32, {r}, Values(static_cast<size_t>(r), -9));
  TopIndices({.scores = x, .indices = indices}, stream);
  return indices.ToDoubles();
}

Values Match(const Values& from, const Values& to) {
  testing::TestStream stream(1);
  const HostTensor a = HostTensor::Of(DType::kI32, {static_cast<int64_t>(from.size())}, from);
  const HostTensor b = HostTensor::Of(DType::kI32, {static_cast<int64_t>(to.size())}, to);
  const HostTensor sources = HostTensor::Of(DType::kI32, {static_cast<int64_t>(to.size())}, Values(to.size(), -9));
  MatchIndices({.from = a, .to = b, .sources = sources}, stream);
  return sources.ToDoubles();
}

TEST(TopIndices, AscendingAndNotBySize) {
  EXPECT_THAT(Top({1, 5, 2, 9, 3}, 3), ElementsAre(1, 3, 4));
  EXPECT_THAT(Top({1, 5, 2, 9, 3}, 5), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(Top({1, 5, 2, 9, 3}, 0), ElementsAre());
}

// A library's unordered top-k may take any of the equal ones (dct-lowrank.md, pitfall 3).
TEST(TopIndices, TiesGoToTheLowestIndex) {
  EXPECT_THAT(Top({2, 7, 2, 2, 7, 2}, 3), ElementsAre(0, 1, 4));
  EXPECT_THAT(Top({0, 0, 0, 0}, 2), ElementsAre(0, 1));
}

TEST(TopIndices, NanIsTheLargestAndInfinityNext) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_THAT(Top({1e30, infinity, 1, std::numeric_limits<double>::quiet_NaN()}, 2), ElementsAre(1, 3));
}

TEST(TopIndices, MatchesAStableSort) {
  for (const int64_t n : {17, 1000}) {
    Values scores = HostTensor::Normal(DType::kF32, {n}, 4).ToDoubles();
    for (double& score : scores) score = std::abs(std::round(score * 30) / 8);  // with ties, exact in f32
    std::vector<int> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)]; });
    for (const int64_t r : {int64_t{1}, n / 3, n - 1}) {
      std::vector<int> expected(order.begin(), order.begin() + r);
      std::sort(expected.begin(), expected.end());
      EXPECT_THAT(Top(scores, r), ElementsAreArray(expected)) << n << " " << r;
    }
  }
}

// Ties in several places of a long list, among them a list of one value only.
TEST(TopIndices, SameIndicesAsOnTheCpu) {
  for (const int64_t levels : {1, 3, 40, 1'000'000}) {
    const int64_t n = 5003;
    const HostTensor scores(DType::kF32, {n});
    for (int64_t i = 0; i < n; ++i) {
      const double uniform =
          static_cast<double>(ToUniform(RandomWord({.seed = 2, .purpose = kRandomTest}, static_cast<uint64_t>(i))));
      scores.as<float>()[i] = static_cast<float>(std::floor(uniform * static_cast<double>(levels))) * 0.37f;
    }
    for (const int64_t r : {int64_t{1}, int64_t{700}, int64_t{2500}, n}) {
      testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
        const HostTensor indices(DType::kI32, {r});
        TopIndices({.scores = scores, .indices = indices}, stream);
        return indices.Bytes();
      });
    }
  }
}

TEST(MatchIndices, SaysWhereEachWas) {
  EXPECT_THAT(Match({1, 4, 6, 9}, {0, 4, 5, 9}), ElementsAre(-1, 1, -1, 3));
  EXPECT_THAT(Match({1, 4, 6}, {1, 4, 6}), ElementsAre(0, 1, 2));
  EXPECT_THAT(Match({7, 8}, {1, 9}), ElementsAre(-1, -1));
  EXPECT_THAT(Match({2, 3}, {3}), ElementsAre(1));
  EXPECT_THAT(Match({}, {3}), ElementsAre(-1));
}

}  // namespace
}  // namespace trainyard::kernels
