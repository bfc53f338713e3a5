#include "kernels/prune/prune_select.h"

#include <algorithm>
#include <numeric>

#include "gtest/gtest.h"
#include "kernels/optim/blockwise/moment8.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

std::vector<bool> BitsOf(const HostTensor& mask, int64_t elements) {
  std::vector<bool> bits;
  for (int64_t i = 0; i < elements; ++i) bits.push_back(((mask.as<uint8_t>()[i / 8] >> (i % 8)) & 1) != 0);
  return bits;
}

std::vector<bool> Lowest(const PruneScore& score, int64_t count, int threads = 1) {
  testing::TestStream stream(threads);
  const HostTensor mask = HostTensor(DType::kU8, {MaskBytes(score.w.size())});
  std::fill_n(mask.as<uint8_t>(), MaskBytes(score.w.size()), 0xFF);  // must be overwritten
  const HostTensor counts(DType::kU32, {256});
  PruneLowest({&score, 1}, count, {&mask.view(), 1}, counts, stream);
  if (score.w.size() % 8 != 0) {
    EXPECT_EQ(mask.as<uint8_t>()[score.w.size() / 8] >> (score.w.size() % 8), 0);
  }
  return BitsOf(mask, score.w.size());
}

// Sorts by (score, magnitude, index), as the header orders.
std::vector<bool> SortedReference(const std::vector<double>& scores, const std::vector<double>& w, int64_t count) {
  std::vector<size_t> order(w.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (scores[a] != scores[b]) return scores[a] < scores[b];
    return std::abs(w[a]) < std::abs(w[b]);
  });
  std::vector<bool> kept(w.size(), true);
  for (int64_t i = 0; i < count; ++i) kept[order[static_cast<size_t>(i)]] = false;
  return kept;
}

HostTensor Constant(int64_t n) {
  return HostTensor::Filled(DType::kF32, {n}, 0.25);
}
HostTensor HalfConstant(int64_t n) {
  HostTensor w = HostTensor::Normal(DType::kF32, {n}, 9);
  for (int64_t i = 0; i < n; i += 2) w.as<float>()[i] = i % 4 == 0 ? 0.5f : -0.5f;
  return w;
}

// methods/elsa.md 5.2. A selection by magnitude under the Fisher name, or the other way round, fails.
TEST(PruneSelectTest, ScoresOfTheNotes) {
  const HostTensor w = HostTensor::Of(DType::kF32, {3}, {3, 2, 1});
  const HostTensor fisher = HostTensor::Of(DType::kF32, {3}, {0.1, 1, 4});
  EXPECT_EQ(Lowest({.w = w, .fisher = fisher}, 1), (std::vector<bool>{false, true, true}));
  EXPECT_EQ(Lowest({.w = w}, 1), (std::vector<bool>{true, true, false}));

  const HostTensor group = HostTensor::Of(DType::kF32, {4}, {1, -4, 2, 3});
  const HostTensor mask(DType::kU8, {1});
  testing::TestStream stream(1);
  PruneGroups({.score = {.w = group}, .keep = 2, .group = 4, .mask = mask}, stream);
  EXPECT_EQ(BitsOf(mask, 4), (std::vector<bool>{false, true, false, true}));
}

// 5.3: exactly k0 zeros, also where most values are equal; "score <= threshold" would take all of those.
TEST(PruneSelectTest, ExactCountsWithTies) {
  for (const int64_t n : {1, 7, 100, 1000, testing::DeviceUnderTest() == Device::kCuda ? 2011 : 20011}) {
    for (const double share : {0.0, 0.29, 0.5, 0.9, 0.999}) {
      const int64_t count = PrunedCount(n, PartsPerMillion(share));
      for (const HostTensor& w : {Constant(n), HalfConstant(n), HostTensor::Normal(DType::kF32, {n}, 5)}) {
        const std::vector<bool> kept = Lowest({.w = w}, count, 2);
        EXPECT_EQ(std::count(kept.begin(), kept.end(), false), count) << n << " " << share;
        const std::vector<double> values = w.ToDoubles();
        std::vector<double> magnitudes;
        for (const double value : values) magnitudes.push_back(std::abs(value));
        EXPECT_EQ(kept, SortedReference(magnitudes, values, count)) << n << " " << share;
      }
    }
  }
  EXPECT_EQ(PrunedCount(100, PartsPerMillion(0.29)), 29);  // 0.29 * 100 is 28.999... in floating point
  EXPECT_EQ(PrunedCount(int64_t{1} << 50, 999'999),
            ((int64_t{1} << 50) / 1'000'000) * 999'999 + ((int64_t{1} << 50) % 1'000'000) * 999'999 / 1'000'000);
}

// Second moments so small that every score is 0: the order is that of magnitudes, and not of indices.
TEST(PruneSelectTest, UnderflowFallsBackToMagnitudes) {
  constexpr int64_t kCount = 3001;
  const HostTensor w = HostTensor::Normal(DType::kF32, {kCount}, 7, 1e-3);
  const HostTensor fisher = HostTensor::Filled(DType::kF32, {kCount}, 1e-44);
  for (int64_t i = 0; i < kCount; i += 5) fisher.as<float>()[i] = 1.0f;  // and some that do not underflow
  std::vector<double> scores;
  for (int64_t i = 0; i < kCount; ++i) {
    scores.push_back(w.as<float>()[i] * w.as<float>()[i] * fisher.as<float>()[i]);
  }
  for (const int64_t count : {1, 1000, 2400, 2999}) {
    EXPECT_EQ(Lowest({.w = w, .fisher = fisher}, count), SortedReference(scores, w.ToDoubles(), count));
  }
}

TEST(PruneSelectTest, ReadsSecondMomentsOfEightBits) {
  constexpr int64_t kCount = 700;
  const HostTensor w = HostTensor::Normal(DType::kF32, {kCount}, 7);
  const HostTensor codes(DType::kU8, {kCount});
  const HostTensor scales = HostTensor::Of(DType::kF32, {3}, {1, 1e-3, 10});
  const HostTensor fisher(DType::kF32, {kCount});
  for (int64_t i = 0; i < kCount; ++i) {
    codes.as<uint8_t>()[i] = static_cast<uint8_t>(i * 37 % 256);
    fisher.as<float>()[i] = SecondMomentOf(codes.as<uint8_t>()[i], scales.as<float>()[i / kMoment8Block]);
  }
  EXPECT_EQ(Lowest({.w = w, .fisher = codes, .fisher_scales = scales}, 350), Lowest({.w = w, .fisher = fisher}, 350));
  EXPECT_NE(Lowest({.w = w, .fisher = fisher}, 350), Lowest({.w = w}, 350));
}

// 5.3: identical masks for 1, 2, 3 and 4 shards, cut unevenly, whose histograms and ties are all they tell each other.
TEST(PruneSelectTest, ShardsSelectAsTheWhole) {
  constexpr int64_t kCount = 5000;
  const HostTensor fisher = HostTensor::Normal(DType::kF32, {kCount}, 8);
  for (int64_t i = 0; i < kCount; ++i) fisher.as<float>()[i] = std::abs(fisher.as<float>()[i]);
  for (const bool has_fisher : {false, true}) {
    for (const HostTensor& w : {Constant(kCount), HalfConstant(kCount), HostTensor::Normal(DType::kF32, {kCount}, 5)}) {
      PruneScore whole = {.w = w};
      if (has_fisher) whole.fisher = fisher;
      const int64_t pruned = 3100;
      const std::vector<bool> expected = Lowest(whole, pruned);
      for (const std::vector<int64_t>& cuts :
           std::vector<std::vector<int64_t>>{{0, 1111, 5000}, {0, 1, 4096, 5000}, {0, 700, 701, 4999, 5000}}) {
        testing::TestStream stream(1);
        std::vector<PruneScore> shards;
        for (size_t i = 0; i + 1 < cuts.size(); ++i) {
          shards.push_back({.w = whole.w.Slice(cuts[i], cuts[i + 1] - cuts[i])});
          if (has_fisher) shards.back().fisher = whole.fisher.Slice(cuts[i], cuts[i + 1] - cuts[i]);
        }
        const HostTensor counts(DType::kU32, {256});
        RadixSelect select(pruned, whole.digits());
        while (!select.done()) {
          uint64_t sums[256] = {};  // what an all-reduce over the shards' ranks gives
          for (const PruneScore& shard : shards) {
            PruneHistogram({.score = shard, .digit = select.digit(), .counts = counts}, stream);
            for (int i = 0; i < 256; ++i) sums[i] += counts.as<uint32_t>()[i];
          }
          select.Take(sums);
        }
        std::vector<uint64_t> equal;
        for (const PruneScore& shard : shards) {
          PruneEqual({.score = shard, .key = select.threshold().key, .count = counts.view().Slice(0, 1)}, stream);
          equal.push_back(counts.as<uint32_t>()[0]);
        }
        const std::vector<int64_t> ties = DivideTies(select.threshold().ties, equal);
        std::vector<bool> kept;
        for (size_t i = 0; i < shards.size(); ++i) {
          const HostTensor mask(DType::kU8, {MaskBytes(shards[i].w.size())});
          PruneMask(
              {.score = shards[i], .threshold = {select.threshold().key, ties[i]}, .mask = mask, .counts = counts},
              stream);
          const std::vector<bool> bits = BitsOf(mask, shards[i].w.size());
          kept.insert(kept.end(), bits.begin(), bits.end());
        }
        EXPECT_EQ(kept, expected);
      }
    }
  }
}

// A threshold over several tensors keeps what is large, wherever it is.
TEST(PruneSelectTest, OneThresholdForSeveralTensors) {
  const HostTensor a = HostTensor::Normal(DType::kF32, {900}, 1), b = HostTensor::Normal(DType::kF32, {100}, 2, 10);
  const HostTensor both(DType::kF32, {1000});
  std::copy_n(a.as<float>(), 900, both.as<float>());
  std::copy_n(b.as<float>(), 100, both.as<float>() + 900);
  const std::vector<bool> expected = Lowest({.w = both}, 850);
  const HostTensor mask_a(DType::kU8, {MaskBytes(900)}), mask_b(DType::kU8, {MaskBytes(100)});
  const HostTensor counts(DType::kU32, {256});
  testing::TestStream stream(1);
  const PruneScore scores[] = {{.w = a}, {.w = b}};
  const TensorView masks[] = {mask_a, mask_b};
  PruneLowest(scores, 850, masks, counts, stream);
  std::vector<bool> kept = BitsOf(mask_a, 900);
  const std::vector<bool> more = BitsOf(mask_b, 100);
  EXPECT_GT(std::count(more.begin(), more.end(), true), 50);
  kept.insert(kept.end(), more.begin(), more.end());
  EXPECT_EQ(kept, expected);
}

TEST(PruneGroupsTest, KeepsTheHighestOfEveryGroup) {
  for (const auto& [keep, group] : std::vector<std::pair<int, int>>{{2, 4}, {4, 8}, {1, 2}, {3, 5}}) {
    const int64_t n = int64_t{group} * 901;
    const HostTensor w = HalfConstant(n);
    const HostTensor mask(DType::kU8, {MaskBytes(n)});
    testing::TestStream stream(2);
    PruneGroups({.score = {.w = w}, .keep = keep, .group = group, .mask = mask}, stream);
    const std::vector<bool> kept = BitsOf(mask, n);
    for (int64_t first = 0; first < n; first += group) {
      std::vector<double> values;
      for (int i = 0; i < group; ++i) values.push_back(std::abs(w.as<float>()[first + i]));
      const std::vector<bool> expected = SortedReference(values, values, group - keep);
      for (int i = 0; i < group; ++i) EXPECT_EQ(kept[static_cast<size_t>(first + i)], expected[static_cast<size_t>(i)]);
    }
  }
}

// Ties in every piece of a tensor, and second moments of 8 bits.
TEST(PruneSelectTest, AllDevicesGiveTheBitsOfTheCpu) {
  constexpr int64_t kCount = 9001;
  const HostTensor codes(DType::kU8, {kCount}), scales = HostTensor::Filled(DType::kF32, {Moment8Blocks(kCount)}, 0.1);
  for (int64_t i = 0; i < kCount; ++i) codes.as<uint8_t>()[i] = static_cast<uint8_t>(i * 37 % 5);
  const HostTensor w = HalfConstant(kCount);
  const PruneScore scores[] = {{.w = w}, {.w = w, .fisher = codes, .fisher_scales = scales, .fisher_factor = 1.3f}};
  for (const PruneScore& score : scores) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      const HostTensor mask(DType::kU8, {MaskBytes(kCount)}), groups(DType::kU8, {MaskBytes(kCount - 1)});
      const HostTensor counts(DType::kU32, {256});
      PruneLowest({&score, 1}, 4000, {&mask.view(), 1}, counts, stream);
      PruneScore whole = {.w = score.w.Slice(0, kCount - 1)};
      PruneGroups({.score = whole, .keep = 1, .group = 4, .mask = groups}, stream);
      std::vector<uint8_t> bytes = mask.Bytes();
      const std::vector<uint8_t> more = groups.Bytes();
      bytes.insert(bytes.end(), more.begin(), more.end());
      return bytes;
    });
  }
}

TEST(PruneSelectTest, ThreadCountShowsInNoBit) {
  const HostTensor w = HalfConstant(50001);
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor mask(DType::kU8, {MaskBytes(50001)}), counts(DType::kU32, {256});
    const PruneScore score = {.w = w};
    PruneLowest({&score, 1}, 30000, {&mask.view(), 1}, counts, stream);
    return mask.Bytes();
  });
}

}  // namespace
}  // namespace trainyard::kernels
