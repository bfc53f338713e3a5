#include "worker/ckpt/tensor_division.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard::ckpt {
namespace {

TEST(DivideTensorsTest, TheLargestFirstToTheLeastLoaded) {
  EXPECT_EQ(DivideTensors({10, 50, 30, 20, 10}, 2), std::vector<int>({0, 0, 1, 1, 1}));  // 60 and 60
  EXPECT_EQ(DivideTensors({5, 5, 5}, 4), std::vector<int>({0, 1, 2}));
  EXPECT_EQ(DivideTensors({}, 2), std::vector<int>());
  EXPECT_EQ(LargestShare({10, 50, 30, 20, 10}, 2), 60);
  EXPECT_EQ(LargestShare({}, 2), 0);
}

TEST(DivideTensorsTest, NoRankGetsMoreThanItsShareAndTheLargest) {
  std::vector<int64_t> bytes;
  for (int64_t i = 0; i < 200; ++i) bytes.push_back((i * 7919) % 1000);
  int64_t total = 0;
  for (int64_t b : bytes) total += b;
  for (int ranks : {1, 2, 3, 7}) {
    const std::vector<int> owner = DivideTensors(bytes, ranks);
    std::vector<int64_t> load(static_cast<size_t>(ranks));
    for (size_t i = 0; i < bytes.size(); ++i) load[static_cast<size_t>(owner[i])] += bytes[i];
    EXPECT_LE(*std::max_element(load.begin(), load.end()), total / ranks + 1000) << ranks;
  }
}

}  // namespace
}  // namespace trainyard::ckpt
