// Ranks as real processes, one of which is killed. A rank is forked before this process has any thread; blobs travel
// over pipes, as they travel through the coordinator in a cluster.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "worker/comm/rendezvous.h"

namespace trainyard::comm {
namespace {

constexpr int kRanks = 3;

void WriteFrame(int fd, const std::string& text) {
  const uint32_t length = static_cast<uint32_t>(text.size());
  if (write(fd, &length, sizeof(length)) != sizeof(length) ||
      write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    _exit(99);
  }
}

std::string ReadFrame(int fd) {
  uint32_t length = 0;
  if (read(fd, &length, sizeof(length)) != sizeof(length)) return "";
  std::string text(length, '\0');
  size_t got = 0;
  while (got < length) {
    const ssize_t now = read(fd, text.data() + got, length - got);
    if (now <= 0) return "";
    got += static_cast<size_t>(now);
  }
  return text;
}

struct RankProcess {
  pid_t pid = -1;
  int to_rank = -1, from_rank = -1;
};

// Sums until told otherwise; says what the first failed sum returned.
[[noreturn]] void RunRank(int rank, int in, int out) {
  RendezvousOptions options;
  options.tag = {"job", 1, 7};
  options.rank = rank;
  options.world_size = kRanks;
  options.connect_timeout = absl::Seconds(20);
  options.timeout = absl::Seconds(20);
  auto rendezvous = Rendezvous::Create(options);
  if (!rendezvous.ok()) _exit(98);
  WriteFrame(out, (*rendezvous)->LocalAddress());
  std::vector<std::string> table;
  for (int peer = 0; peer < kRanks; ++peer) table.push_back(ReadFrame(in));
  auto communicators = (*rendezvous)->Connect(table, 1);
  if (!communicators.ok()) _exit(97);
  std::vector<float> values(1 << 20);
  for (int round = 0;; ++round) {
    values.assign(values.size(), static_cast<float>(rank));
    const absl::Status status = communicators->data->AllReduceSum(values.data(), static_cast<int64_t>(values.size()));
    if (!status.ok()) {
      WriteFrame(out, status.ToString());
      _exit(0);
    }
    if (values.front() != 3.0f || values.back() != 3.0f) _exit(96);
    if (round == 3) WriteFrame(out, "summed");
  }
}

TEST(ProcessesTest, SurvivorsOfAKilledRankFailAtOnceAndSayWhy) {
  std::vector<RankProcess> ranks;
  for (int rank = 0; rank < kRanks; ++rank) {
    int to_rank[2], from_rank[2];
    ASSERT_EQ(pipe(to_rank), 0);
    ASSERT_EQ(pipe(from_rank), 0);
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) RunRank(rank, to_rank[0], from_rank[1]);
    close(to_rank[0]);
    close(from_rank[1]);
    ranks.push_back({pid, to_rank[1], from_rank[0]});
  }
  std::vector<std::string> table;
  for (const RankProcess& rank : ranks) table.push_back(ReadFrame(rank.from_rank));
  for (const RankProcess& rank : ranks) {
    for (const std::string& blob : table) WriteFrame(rank.to_rank, blob);
  }
  for (const RankProcess& rank : ranks) EXPECT_EQ(ReadFrame(rank.from_rank), "summed");

  kill(ranks[1].pid, SIGKILL);
  const absl::Time killed = absl::Now();
  for (int survivor : {0, 2}) {
    const std::string said = ReadFrame(ranks[static_cast<size_t>(survivor)].from_rank);
    EXPECT_THAT(said, ::testing::AllOf(::testing::HasSubstr("UNAVAILABLE"),
                                       ::testing::HasSubstr(absl::StrCat("rank ", survivor, " of 3"))));
  }
  EXPECT_LT(absl::Now() - killed, absl::Seconds(5));
  for (int rank = 0; rank < kRanks; ++rank) {
    int status = 0;
    ASSERT_EQ(waitpid(ranks[static_cast<size_t>(rank)].pid, &status, 0), ranks[static_cast<size_t>(rank)].pid);
    if (rank == 1) {
      EXPECT_TRUE(WIFSIGNALED(status));
    } else {
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << rank << ": " << status;
    }
  }
}

}  // namespace
}  // namespace trainyard::comm
