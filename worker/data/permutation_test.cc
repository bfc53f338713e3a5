#include "worker/data/permutation.h"

#include <cmath>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace trainyard::data {
namespace {

TEST(PermutationTest, IsABijectionForEverySmallSizeAndSomeLarge) {
  std::vector<int64_t> sizes = {1000, 4095, 4096, 4097, 65537};
  for (int64_t size = 1; size <= 130; ++size) sizes.push_back(size);
  for (int64_t size : sizes) {
    const Permutation permutation(size, 11, 3);
    std::vector<bool> seen(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) {
      const int64_t image = permutation(i);
      ASSERT_GE(image, 0);
      ASSERT_LT(image, size);
      ASSERT_FALSE(seen[static_cast<size_t>(image)]) << "size " << size << ", " << image << " twice";
      seen[static_cast<size_t>(image)] = true;
    }
  }
}

TEST(PermutationTest, HugeSizesStayInRangeAndDistinct) {
  const int64_t size = int64_t{1} << 61;
  const Permutation permutation(size, 1, 0);
  std::set<int64_t> images;
  for (int64_t i = 0; i < 1000; ++i) {
    const int64_t image = permutation(size - 1 - i);
    ASSERT_GE(image, 0);
    ASSERT_LT(image, size);
    images.insert(image);
  }
  EXPECT_EQ(images.size(), 1000u);
}

TEST(PermutationTest, SeedAndEpochChangeTheOrder) {
  const Permutation a(1000, 1, 0), b(1000, 2, 0), c(1000, 1, 1), same(1000, 1, 0);
  int equal_seed = 0, equal_epoch = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(a(i), same(i));
    equal_seed += a(i) == b(i);
    equal_epoch += a(i) == c(i);
  }
  // The number of agreements of two random permutations is Poisson with mean 1: more than 12 has odds below 1e-9.
  EXPECT_LE(equal_seed, 12);
  EXPECT_LE(equal_epoch, 12);
}

// Fails for a network of too few rounds, whose images of one element cluster.
TEST(PermutationTest, EveryPlaceIsEquallyLikely) {
  for (const int64_t size : {5, 16, 23}) {
    const int kEpochs = 20000;
    for (const int64_t index : {int64_t{0}, size - 1}) {
      std::vector<int> count(static_cast<size_t>(size));
      for (int epoch = 0; epoch < kEpochs; ++epoch) {
        ++count[static_cast<size_t>(Permutation(size, 5, static_cast<uint32_t>(epoch))(index))];
      }
      const double mean = static_cast<double>(kEpochs) / static_cast<double>(size);
      double chi_square = 0;
      for (int n : count) chi_square += (n - mean) * (n - mean) / mean;
      const double degrees = static_cast<double>(size - 1);
      EXPECT_LT(chi_square, degrees + 5 * std::sqrt(2 * degrees)) << "size " << size << ", index " << index;
    }
  }
}

// Neighbouring samples must not be neighbouring windows: a run would see one document at a time.
TEST(PermutationTest, NeighboursAreTornApart) {
  const int64_t size = 10000;
  const Permutation permutation(size, 7, 0);
  int close = 0;
  double sum = 0;
  for (int64_t i = 0; i + 1 < size; ++i) {
    const int64_t distance = std::abs(permutation(i + 1) - permutation(i));
    close += distance <= 10;
    sum += static_cast<double>(distance);
  }
  EXPECT_LT(close, 50);                                                   // 20 expected
  EXPECT_NEAR(sum / static_cast<double>(size), size / 3.0, size / 60.0);  // mean distance of two uniform draws
}

}  // namespace
}  // namespace trainyard::data
