#include "kernels/core/simt/emulator.h"

#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/core/simt/cuda_words.h"

namespace trainyard::simt {
namespace {

TEST(EmulatorTest, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> runs(3 * 2 * 40);
  simt::Run({3, 2, 1}, {40, 1, 1}, 0,
            [&] { ++runs[(blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x]; });
  EXPECT_EQ(runs, std::vector<int>(runs.size(), 1));
}

// A prefix sum over 100 threads through shared memory: wrong if a thread passes a barrier early, in either order.
TEST(EmulatorTest, BlockBarrierSeparatesWritesFromReads) {
  for (const Order order : {Order::kForward, Order::kBackward}) {
    SetOrder(order);
    std::vector<int> out(100);
    simt::Run({1, 1, 1}, {100, 1, 1}, 100 * sizeof(int), [&] {
      int* shared = static_cast<int*>(DynamicShared());
      const int self = static_cast<int>(threadIdx.x);
      shared[self] = self + 1;
      __syncthreads();
      for (int offset = 1; offset < 100; offset *= 2) {
        const int add = self >= offset ? shared[self - offset] : 0;
        __syncthreads();
        shared[self] += add;
        __syncthreads();
      }
      out[threadIdx.x] = shared[self];
    });
    for (int i = 0; i < 100; ++i) EXPECT_EQ(out[static_cast<size_t>(i)], (i + 1) * (i + 2) / 2);
  }
  SetOrder(Order::kForward);
}

TEST(EmulatorTest, ThreadsThatEndedCountAsArrivedAtTheBlocksBarrier) {
  int after = 0;
  simt::Run({1, 1, 1}, {64, 1, 1}, 0, [&] {
    if (threadIdx.x >= 10) return;
    __syncthreads();
    ++after;
  });
  EXPECT_EQ(after, 10);
}

TEST(EmulatorTest, Shuffles) {
  std::vector<int> exchanged(64), down(64), up(64), from(64);
  simt::Run({1, 1, 1}, {64, 1, 1}, 0, [&] {
    const int self = static_cast<int>(threadIdx.x);
    exchanged[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, self, 5);
    down[threadIdx.x] = __shfl_down_sync(0xFFFFFFFFu, self, 3, 16);
    up[threadIdx.x] = __shfl_up_sync(0xFFFFFFFFu, self, 2);
    from[threadIdx.x] = __shfl_sync(0xFFFFFFFFu, self, 9, 8);
  });
  for (int i = 0; i < 64; ++i) {
    const size_t at = static_cast<size_t>(i);
    EXPECT_EQ(exchanged[at], i ^ 5);
    EXPECT_EQ(down[at], i % 16 < 13 ? i + 3 : i);
    EXPECT_EQ(up[at], i % 32 >= 2 ? i - 2 : i);
    EXPECT_EQ(from[at], i / 8 * 8 + 1);
  }
}

// Lanes that take part in some operations only keep their own counts right.
TEST(EmulatorTest, PartialMasks) {
  std::vector<int> sums(32);
  simt::Run({1, 1, 1}, {32, 1, 1}, 0, [&] {
    const int self = static_cast<int>(threadIdx.x);
    int value = self;
    if (self < 16) value += __shfl_xor_sync(0xFFFFu, value, 1);
    sums[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, value, 16);
  });
  for (int i = 0; i < 32; ++i) {
    const int other = i ^ 16;
    EXPECT_EQ(sums[static_cast<size_t>(i)], other < 16 ? other + (other ^ 1) : other);
  }
}

TEST(EmulatorTest, Votes) {
  std::vector<unsigned> ballots(40);
  std::vector<int> any(40), all(40);
  simt::Run({1, 1, 1}, {40, 1, 1}, 0, [&] {
    const int odd = static_cast<int>(threadIdx.x % 2);
    ballots[threadIdx.x] = __ballot_sync(0xFFFFFFFFu, odd);
    any[threadIdx.x] = __any_sync(0xFFFFFFFFu, threadIdx.x == 33);
    all[threadIdx.x] = __all_sync(0xFFFFFFFFu, threadIdx.x < 33);
  });
  EXPECT_EQ(ballots[0], 0xAAAAAAAAu);
  EXPECT_EQ(ballots[39], 0xAAu);  // a warp of eight
  EXPECT_EQ(any[5], 0);
  EXPECT_EQ(any[39], 1);
  EXPECT_EQ(all[5], 1);
  EXPECT_EQ(all[39], 0);
}

TEST(EmulatorTest, SharedMemoryStartsAsNaN) {
  bool nan = true;
  simt::Run({2, 1, 1}, {1, 1, 1}, 64, [&] {
    float* shared = static_cast<float*>(DynamicShared());
    for (int i = 0; i < 16; ++i) {
      nan = nan && std::isnan(shared[i]);
      shared[i] = 1;
    }
  });
  EXPECT_TRUE(nan);
}

TEST(EmulatorTest, OrderIsTurnedAround) {
  std::vector<unsigned> seen;
  SetOrder(Order::kBackward);
  simt::Run({2, 1, 1}, {2, 1, 1}, 0, [&] { seen.push_back(blockIdx.x * 2 + threadIdx.x); });
  SetOrder(Order::kForward);
  EXPECT_EQ(seen, (std::vector<unsigned>{3, 2, 1, 0}));
}

TEST(EmulatorDeathTest, DivergenceAborts) {
  EXPECT_DEATH(simt::Run({1, 1, 1}, {32, 1, 1}, 0,
                         [] {
                           if (threadIdx.x < 16) (void)__shfl_xor_sync(0xFFFFFFFFu, 1, 1);
                         }),
               "divergent");
  EXPECT_DEATH(simt::Run({1, 1, 1}, {64, 1, 1}, 0,
                         [] {
                           if (threadIdx.x < 32) {
                             __syncthreads();
                           } else if (threadIdx.x < 40) {
                             (void)__shfl_xor_sync(0xFFFFFFFFu, 1, 1);
                           }
                         }),
               "divergent");
}

}  // namespace
}  // namespace trainyard::simt
