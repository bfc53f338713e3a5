#include "worker/comm/rendezvous.h"

#include <atomic>
#include <thread>

#include "gtest/gtest.h"
#include "worker/comm/testing/ranks.h"

// gloo forgets the result of getaddrinfo when it cannot bind to it. LeakSanitizer asks this function, if it is there.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:gloo::transport::tcp::CreateDeviceAttr\n";
}

namespace trainyard::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::unique_ptr<Rendezvous> Make(int rank, int ranks, uint64_t fence = 7,
                                 absl::Duration connect_timeout = absl::Seconds(20)) {
  RendezvousOptions options;
  options.tag = {"job", 1, fence};
  options.rank = rank;
  options.world_size = ranks;
  options.connect_timeout = connect_timeout;
  auto made = Rendezvous::Create(options);
  EXPECT_OK(made);
  return *std::move(made);
}

TEST(RendezvousTest, GivesThreeIndependentCommunicators) {
  std::vector<Communicators> ranks = ConnectOverGloo(3, absl::Seconds(20));
  ASSERT_EQ(ranks.size(), 3u);
  RunThreads(3, [&](int rank) {
    Communicators& own = ranks[static_cast<size_t>(rank)];
    // Calls in another order on each rank would wait for ever on one sequence.
    float a = 1, b = 2, c = 3;
    std::thread control([&] { EXPECT_OK(own.control->AllReduceSum(&b, 1)); });
    std::thread background([&] { EXPECT_OK(own.background->AllReduceSum(&c, 1)); });
    EXPECT_OK(own.data->AllReduceSum(&a, 1));
    control.join();
    background.join();
    EXPECT_EQ(a, 3);
    EXPECT_EQ(b, 6);
    EXPECT_EQ(c, 9);
  });
}

TEST(RendezvousTest, AWorldOfOneNeedsNoPeer) {
  auto rendezvous = Make(0, 1);
  ASSERT_OK_AND_ASSIGN(Communicators alone, rendezvous->Connect({rendezvous->LocalAddress()}, 1));
  float x = 5;
  EXPECT_OK(alone.data->AllReduceSum(&x, 1));
  EXPECT_EQ(x, 5);
}

TEST(RendezvousTest, RefusesAStaleBlob) {
  auto rank0 = Make(0, 2), rank1_of_old_attempt = Make(1, 2, 6);
  EXPECT_THAT(rank0->Connect({rank0->LocalAddress(), rank1_of_old_attempt->LocalAddress()}, 1),
              StatusIs(absl::StatusCode::kAborted, AllOf(HasSubstr("stale"), HasSubstr("fence 6"))));
}

TEST(RendezvousTest, RefusesATableThatIsNotOfThisProcess) {
  auto rank0 = Make(0, 2), another_rank0 = Make(0, 2), rank1 = Make(1, 2);
  EXPECT_THAT(rank0->Connect({another_rank0->LocalAddress(), rank1->LocalAddress()}, 1),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("another process as rank 0")));
  EXPECT_THAT(rank0->Connect({rank0->LocalAddress()}, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 ")));
  EXPECT_THAT(rank0->Connect({rank0->LocalAddress(), "junk"}, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rank 1")));
}

TEST(RendezvousTest, RanksOfDifferentEpochsDoNotConnect) {
  auto rank0 = Make(0, 2), rank1 = Make(1, 2);
  const std::vector<std::string> table = {rank0->LocalAddress(), rank1->LocalAddress()};
  std::atomic<int> refused{0};
  RunThreads(2, [&](int rank) {
    const auto made = (rank == 0 ? rank0 : rank1)->Connect(table, rank == 0 ? 1 : 2);
    EXPECT_FALSE(made.ok());
    if (absl::IsAborted(made.status())) ++refused;  // or sees that the other has left
  });
  EXPECT_GE(refused, 1);
}

TEST(RendezvousTest, APeerThatNeverJoinsIsATimeout) {
  auto rank0 = Make(0, 2, 7, absl::Milliseconds(500)), rank1 = Make(1, 2);
  const std::vector<std::string> table = {rank0->LocalAddress(), rank1->LocalAddress()};
  const absl::Time start = absl::Now();
  EXPECT_THAT(rank0->Connect(table, 1), StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("rank")));
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
}

TEST(RendezvousTest, AbortEndsAPendingConnect) {
  auto rank0 = Make(0, 2), rank1 = Make(1, 2);
  const std::vector<std::string> table = {rank0->LocalAddress(), rank1->LocalAddress()};
  absl::Status status;
  std::thread connecting([&] { status = rank0->Connect(table, 1).status(); });
  rank0->Abort();
  connecting.join();
  EXPECT_TRUE(absl::IsAborted(status)) << status.ToString();
}

TEST(RendezvousTest, ChecksItsOptions) {
  RendezvousOptions options;
  options.rank = options.world_size = 2;
  EXPECT_THAT(Rendezvous::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rank 2 not in [0, 1]")));
  options.rank = 0;
  options.host = "203.0.113.1";  // an address for documentation: nobody's
  EXPECT_THAT(Rendezvous::Create(options), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("203.0.113.1")));
}

}  // namespace
}  // namespace trainyard::comm
