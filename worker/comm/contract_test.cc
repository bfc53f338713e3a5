// What every implementation of Communicator promises, by one body for all of them.
#include "worker/comm/testing/contract.h"

#include <tuple>

#include "gtest/gtest.h"
#include "worker/comm/nccl/nccl_communicator.h"
#include "worker/comm/nccl/testing/thread_link.h"
#include "worker/comm/testing/ranks.h"

namespace trainyard::comm {
namespace {

using contract::Input;
using contract::View;
using ::testing::HasSubstr;

// NCCL's communicator over a link between threads, with gloo for a lifeline; once as if NCCL reached all memory, once
// as if it reached none.
enum class Tested { kLocal, kGloo, kNccl, kNcclStaged };

std::vector<std::unique_ptr<Communicator>> MakeRanks(Tested tested, int ranks,
                                                     absl::Duration timeout = absl::Seconds(20)) {
  if (tested == Tested::kLocal) return MakeRanks(Transport::kLocal, ranks, timeout);
  std::vector<std::unique_ptr<Communicator>> made = MakeRanks(Transport::kGloo, ranks, timeout);
  if (tested == Tested::kGloo) return made;
  const auto hub = std::make_shared<ThreadLink::Hub>();
  for (size_t rank = 0; rank < made.size(); ++rank) {
    auto link = std::make_unique<ThreadLink>(hub, static_cast<int>(rank), ranks, tested == Tested::kNccl);
    made[rank] = std::make_unique<NcclCommunicator>(std::move(link), std::move(made[rank]), timeout);
  }
  return made;
}

class CommunicatorTest : public ::testing::TestWithParam<std::tuple<Tested, int>> {
 protected:
  Tested transport() const { return std::get<0>(GetParam()); }
  int ranks() const { return std::get<1>(GetParam()); }

  // Runs body(communicator) on every rank.
  void OnAllRanks(const std::function<void(Communicator&)>& body) {
    std::vector<std::unique_ptr<Communicator>> communicators = MakeRanks(transport(), ranks());
    ASSERT_EQ(communicators.size(), static_cast<size_t>(ranks()));
    for (const auto& communicator : communicators) EXPECT_EQ(communicator->size(), ranks());
    RunThreads(ranks(), [&](int rank) { body(*communicators[static_cast<size_t>(rank)]); });
  }
};

TEST_P(CommunicatorTest, AllReduceIsTheSumInRankOrderBitForBit) {
  OnAllRanks(contract::AllReduceIsTheSumInRankOrderBitForBit);
}

TEST_P(CommunicatorTest, AllReduceOfBf16RoundsOnce) {
  OnAllRanks(contract::AllReduceOfBf16RoundsOnce);
}

TEST_P(CommunicatorTest, ReduceScatterAndAllGatherAreTheHalvesOfAllReduce) {
  OnAllRanks(contract::ReduceScatterAndAllGatherAreTheHalvesOfAllReduce);
}

TEST_P(CommunicatorTest, AllGatherKeepsRankOrderForUnequalAndEmptyPieces) {
  OnAllRanks(contract::AllGatherKeepsRankOrderForUnequalAndEmptyPieces);
}

TEST_P(CommunicatorTest, AllGatherStringsAndBroadcastString) {
  OnAllRanks(contract::AllGatherStringsAndBroadcastString);
}

TEST_P(CommunicatorTest, AllToAllMovesEveryBlock) {
  OnAllRanks(contract::AllToAllMovesEveryBlock);
}

TEST_P(CommunicatorTest, BroadcastFromEveryRoot) {
  OnAllRanks(contract::BroadcastFromEveryRoot);
}

TEST_P(CommunicatorTest, MessagesOfOneTagKeepTheirOrderAndTagsDoNotMix) {
  OnAllRanks(contract::MessagesOfOneTagKeepTheirOrderAndTagsDoNotMix);
}

TEST_P(CommunicatorTest, NobodyPassesABarrierBeforeAllHaveCome) {
  std::atomic<int> arrived{0};
  OnAllRanks([&](Communicator& communicator) {
    for (int round = 1; round <= 50; ++round) {
      ++arrived;
      ASSERT_OK(communicator.Barrier());
      EXPECT_GE(arrived, round * ranks());
      ASSERT_OK(communicator.Barrier());
    }
  });
}

TEST_P(CommunicatorTest, TrafficOfAnAllReduceIsTwiceTheForeignParts) {
  OnAllRanks(contract::TrafficOfAnAllReduceIsTwiceTheForeignParts);
}

TEST_P(CommunicatorTest, APeerThatLeavesFailsTheOthersAtOnce) {
  if (ranks() == 1) GTEST_SKIP() << "needs a peer";
  std::vector<std::unique_ptr<Communicator>> communicators = MakeRanks(transport(), ranks());
  RunThreads(ranks(), [&](int rank) {
    std::vector<float> values(1 << 20);
    EXPECT_OK(communicators[static_cast<size_t>(rank)]->AllReduceSum(View(values), 1.0f));
  });
  const absl::Time start = absl::Now();
  RunThreads(ranks(), [&](int rank) {
    auto& communicator = communicators[static_cast<size_t>(rank)];
    std::vector<float> values(1 << 20);
    if (rank == ranks() - 1) {
      communicator.reset();
      return;
    }
    EXPECT_THAT(communicator->AllReduceSum(View(values), 1.0f),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("")));
    // It never heals.
    EXPECT_THAT(communicator->Barrier(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("")));
  });
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));  // far below the timeout
}

// The last call is over for a rank when it is over for itself: leaving then must not fail the others' last call.
TEST_P(CommunicatorTest, RanksLeaveOneAfterTheOther) {
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<Communicator>> communicators = MakeRanks(transport(), ranks());
    RunThreads(ranks(), [&](int rank) {
      auto& communicator = communicators[static_cast<size_t>(rank)];
      std::vector<float> values = Input(rank, 100001);
      ASSERT_OK(communicator->AllReduceSum(View(values), 1.0f));
      ASSERT_OK(communicator->Barrier());
      communicator.reset();
    });
  }
}

// Rank 1 has done its part of the call when it goes; rank 2 waits for rank 0, which is busy elsewhere.
TEST_P(CommunicatorTest, AThirdPeersLossWakesAWaitForASilentOne) {
  if (ranks() < 3) GTEST_SKIP() << "needs two peers";
  std::vector<std::unique_ptr<Communicator>> communicators = MakeRanks(transport(), ranks());
  std::atomic<bool> waiting{false};
  std::thread lost([&] {
    const std::vector<float> values(10);
    // A message that rank 2 takes, and then the connections break.
    EXPECT_OK(communicators[1]->Send(values.data(), 40, 2, 5));
    while (!waiting) std::this_thread::yield();
    communicators[1]->Abort();
  });
  std::vector<float> values(10);
  ASSERT_OK(communicators[2]->Recv(values.data(), 40, 1, 5));
  waiting = true;
  const absl::Time start = absl::Now();
  EXPECT_FALSE(communicators[2]->Recv(values.data(), 40, 0, 5).ok());
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  lost.join();
}

TEST_P(CommunicatorTest, AbsentPeerRunsIntoTheTimeout) {
  if (ranks() == 1) GTEST_SKIP() << "needs a peer";
  std::vector<std::unique_ptr<Communicator>> communicators = MakeRanks(transport(), ranks(), absl::Milliseconds(300));
  std::atomic<int> late{0};
  RunThreads(ranks(), [&](int rank) {
    if (rank == 0) return;  // there, but silent
    std::vector<float> values(1000);
    const absl::Status status = communicators[static_cast<size_t>(rank)]->AllReduceSum(View(values), 1.0f);
    EXPECT_FALSE(status.ok());
    if (absl::IsDeadlineExceeded(status)) ++late;
  });
  EXPECT_GE(late, 1);  // whoever notices first; it takes the others with it
}

TEST_P(CommunicatorTest, AbortWakesTheWaitingCallWithinASecond) {
  if (ranks() == 1) GTEST_SKIP() << "nothing to wait for";
  std::vector<std::unique_ptr<Communicator>> communicators = MakeRanks(transport(), ranks());
  // Rank 0 stays away; the others wait until rank 1 is told to give up.
  std::atomic<int> waiting{0};
  std::vector<absl::Time> woken(static_cast<size_t>(ranks()));
  absl::Time aborted;
  RunThreads(ranks() + 1, [&](int rank) {
    if (rank == 0) return;
    if (rank == ranks()) {
      while (waiting < ranks() - 1) std::this_thread::yield();
      aborted = absl::Now();
      communicators[1]->Abort();
      return;
    }
    std::vector<float> values(1 << 20);
    ++waiting;
    const absl::Status status = communicators[static_cast<size_t>(rank)]->AllReduceSum(View(values), 1.0f);
    woken[static_cast<size_t>(rank)] = absl::Now();
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(rank == 1, absl::IsAborted(status)) << status.ToString();
    EXPECT_FALSE(communicators[static_cast<size_t>(rank)]->Barrier().ok());
  });
  for (int rank = 1; rank < ranks(); ++rank) {
    EXPECT_LT(woken[static_cast<size_t>(rank)] - aborted, absl::Seconds(1)) << rank;
  }
}

std::string CaseName(const ::testing::TestParamInfo<std::tuple<Tested, int>>& info) {
  constexpr const char* kNames[] = {"Local", "Gloo", "Nccl", "NcclStaged"};
  return absl::StrCat(kNames[static_cast<size_t>(std::get<0>(info.param))], std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, CommunicatorTest,
                         ::testing::Combine(::testing::Values(Tested::kLocal, Tested::kGloo, Tested::kNccl,
                                                              Tested::kNcclStaged),
                                            ::testing::Values(1, 2, 3, 4)),
                         CaseName);

}  // namespace
}  // namespace trainyard::comm
