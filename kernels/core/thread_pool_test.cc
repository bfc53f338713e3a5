#include "kernels/core/thread_pool.h"

#include <atomic>
#include <vector>

#include "gtest/gtest.h"

namespace trainyard::kernels {
namespace {

TEST(ThreadPoolTest, EveryIndexOnceForAnyCountGrainAndThreads) {
  for (int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 2, 7, 64, 1000, 1001}) {
      for (int64_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> hits(static_cast<size_t>(count));
        pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end) {
          EXPECT_LT(begin, end);
          EXPECT_EQ(begin % grain, 0);
          for (int64_t i = begin; i < end; ++i) hits[static_cast<size_t>(i)]++;
        });
        for (const auto& hit : hits) EXPECT_EQ(hit, 1);
      }
    }
  }
}

// Fails if a worker can miss a loop, or run a chunk of the next loop with the last one's body.
TEST(ThreadPoolTest, ManyShortLoopsInARow) {
  ThreadPool pool(3);
  int64_t expected = 0;
  std::atomic<int64_t> sum{0};
  for (int loop = 0; loop < 20000; ++loop) {
    const int64_t count = loop % 17;
    pool.ParallelFor(count, 1, [&sum, loop](int64_t begin, int64_t end) { sum += (end - begin) * loop; });
    expected += count * loop;
    ASSERT_EQ(sum, expected);
  }
}

}  // namespace
}  // namespace trainyard::kernels
