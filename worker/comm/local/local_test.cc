// What only the local communicator promises: it sees calls that do not fit together.
#include "gtest/gtest.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/comm/testing/ranks.h"

namespace trainyard::comm {
namespace {

using ::testing::HasSubstr;

TEST(LocalCommunicatorTest, CallsThatDoNotFitFailOnAllRanks) {
  auto communicators = MakeLocalCommunicators(2);
  RunThreads(2, [&](int rank) {
    std::vector<float> values(rank == 0 ? 10 : 11);
    EXPECT_THAT(
        communicators[static_cast<size_t>(rank)]->AllReduceSum(values.data(), static_cast<int64_t>(values.size())),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("all-reduce")));
  });

  communicators = MakeLocalCommunicators(2);
  RunThreads(2, [&](int rank) {
    float value = 0;
    Communicator& own = *communicators[static_cast<size_t>(rank)];
    EXPECT_THAT(rank == 0 ? own.Barrier() : own.Broadcast(&value, 4, 1),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("broadcast")));
  });
}

TEST(LocalCommunicatorTest, AMessageOfAnotherLengthIsRefused) {
  auto communicators = MakeLocalCommunicators(2);
  RunThreads(2, [&](int rank) {
    char buffer[8] = {};
    Communicator& own = *communicators[static_cast<size_t>(rank)];
    EXPECT_THAT(rank == 0 ? own.Send(buffer, 8, 1, 0) : own.Recv(buffer, 4, 0, 0),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("8 bytes")));
  });
}

// The buffers of a rank that gives up are freed at once: nobody may still be reading them. (ASan and TSan look.)
TEST(LocalCommunicatorTest, AnAbortNeverLeavesAReaderInFreedMemory) {
  for (int round = 0; round < 200; ++round) {
    auto communicators = MakeLocalCommunicators(3);
    RunThreads(4, [&](int rank) {
      if (rank == 3) {
        communicators[static_cast<size_t>(round % 3)]->Abort();
        return;
      }
      for (int step = 0; step < 20; ++step) {
        std::vector<float> values(2000, 1.0f);
        if (!communicators[static_cast<size_t>(rank)]->AllReduceSum(values.data(), 2000).ok()) return;
        EXPECT_EQ(values[1999], 3.0f);
      }
    });
  }
}

}  // namespace
}  // namespace trainyard::comm
