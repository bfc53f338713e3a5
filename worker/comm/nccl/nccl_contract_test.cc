// NCCL itself: what every communicator promises, and the quantized exchange, between ranks on GPUs. Ranks are
// processes. NCCL refuses two ranks on one GPU of one host; with a NCCL_HOSTID of its own each rank counts as a host,
// so several share a GPU over loopback, which NCCL's authors do not support for more than checks like these.
//
// Where there is no GPU, or the program was built without NCCL, every test is skipped and says so.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/core/device.h"
#include "worker/comm/nccl/data_transport.h"
#include "worker/comm/nccl/nccl_link.h"
#include "worker/comm/testing/contract.h"
#include "worker/comm/testing/exchanging.h"

namespace trainyard::comm {
namespace {

using ::testing::HasSubstr;

constexpr int kFailed = 1;
constexpr int kNoDevice = 77;

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

// What a rank does with its communicator, whose other side is NCCL.
using Body = std::function<void(std::unique_ptr<Communicator> communicator)>;

[[noreturn]] void RunRank(int rank, int ranks, absl::Duration timeout, int in, int out, const Body& body) {
  setenv("NCCL_HOSTID", absl::StrCat("trainyard-test-rank-", rank).c_str(), 1);
  setenv("NCCL_SOCKET_IFNAME", "lo", 1);
  if (!kernels::CheckCudaDevice().ok()) _exit(kNoDevice);
  RendezvousOptions options;
  options.tag = {"job", 1, 7};
  options.rank = rank;
  options.world_size = ranks;
  options.connect_timeout = absl::Seconds(30);
  options.timeout = options.background_timeout = timeout;
  auto rendezvous = Rendezvous::Create(options);
  EXPECT_OK(rendezvous);
  if (!rendezvous.ok()) _exit(kFailed);
  WriteFrame(out, (*rendezvous)->LocalAddress());
  std::vector<std::string> table;
  for (int peer = 0; peer < ranks; ++peer) table.push_back(ReadFrame(in));
  auto communicators = (*rendezvous)->Connect(table, 1);
  EXPECT_OK(communicators);
  if (!communicators.ok()) _exit(kFailed);
  const absl::Status chosen = ChooseDataTransport(
      {.tag = options.tag, .device = kernels::Device::kCuda, .connect_timeout = absl::Seconds(60), .timeout = timeout},
      &*communicators);
  EXPECT_OK(chosen);
  if (chosen.ok()) body(std::move(communicators->data));
  std::fflush(nullptr);
  _exit(::testing::Test::HasFailure() ? kFailed : 0);
}

// Runs the body on `ranks` processes; `killed` of them may end by a signal. False where there is no device.
bool OnRanks(int ranks, absl::Duration timeout, const Body& body, int killed = -1) {
  if (!HasNccl()) return false;
  std::vector<pid_t> pids;
  std::vector<int> to_ranks, from_ranks;
  for (int rank = 0; rank < ranks; ++rank) {
    int to_rank[2], from_rank[2];
    EXPECT_EQ(pipe(to_rank), 0);
    EXPECT_EQ(pipe(from_rank), 0);
    std::fflush(nullptr);
    const pid_t pid = fork();
    if (pid == 0) RunRank(rank, ranks, timeout, to_rank[0], from_rank[1], body);
    EXPECT_GT(pid, 0);
    close(to_rank[0]);
    close(from_rank[1]);
    pids.push_back(pid);
    to_ranks.push_back(to_rank[1]);
    from_ranks.push_back(from_rank[0]);
  }
  signal(SIGPIPE, SIG_IGN);  // ranks without a device leave before they are written to
  std::vector<std::string> table;
  for (const int fd : from_ranks) table.push_back(ReadFrame(fd));
  bool has_device = true;
  for (const std::string& blob : table) has_device = has_device && !blob.empty();
  for (const int fd : to_ranks) {
    for (const std::string& blob : table) {
      if (has_device) WriteFrame(fd, blob);
    }
    close(fd);
  }
  for (int rank = 0; rank < ranks; ++rank) {
    int status = 0;
    EXPECT_EQ(waitpid(pids[static_cast<size_t>(rank)], &status, 0), pids[static_cast<size_t>(rank)]);
    close(from_ranks[static_cast<size_t>(rank)]);
    if (!has_device) {
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == kNoDevice) << rank << ": " << status;
    } else if (rank == killed) {
      EXPECT_TRUE(WIFSIGNALED(status));
    } else {
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "rank " << rank << ": " << status;
    }
  }
  return has_device;
}

constexpr absl::Duration kTimeout = absl::Seconds(60);
#define SKIP_WITHOUT_DEVICE(ran) \
  if (!(ran)) GTEST_SKIP() << "needs a GPU and a program built with --config=cuda"

class NcclContractTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, NcclContractTest, ::testing::Values(2, 3, 4));

TEST_P(NcclContractTest, WhatEveryCommunicatorPromises) {
  SKIP_WITHOUT_DEVICE(OnRanks(GetParam(), kTimeout, [](std::unique_ptr<Communicator> communicator) {
    for (const auto& check : {contract::AllReduceIsTheSumInRankOrderBitForBit, contract::AllReduceOfBf16RoundsOnce,
                              contract::ReduceScatterAndAllGatherAreTheHalvesOfAllReduce,
                              contract::AllGatherKeepsRankOrderForUnequalAndEmptyPieces,
                              contract::AllGatherStringsAndBroadcastString, contract::AllToAllMovesEveryBlock,
                              contract::BroadcastFromEveryRoot, contract::MessagesOfOneTagKeepTheirOrderAndTagsDoNotMix,
                              contract::TrafficOfAnAllReduceIsTwiceTheForeignParts}) {
      check(*communicator);
    }
    for (int round = 0; round < 20; ++round) EXPECT_OK(communicator->Barrier());
  }));
}

// Gradients and buffers in device memory, over NCCL: the bits of one process on the CPU.
TEST_P(NcclContractTest, QuantizedExchangeHasTheBitsOfTheCpu) {
  const TestModel model = {{{"embedding.weight", 101, 37}}, {}, {{"layers.0.qkv.weight", 67, 33}, {"norm.weight", 31}}};
  const int ranks = GetParam();
  for (const spec::CodecOptions& codec : {spec::CodecOptions(spec::MaxminCodec{4, 64, spec::Rounding::kStochastic}),
                                          spec::CodecOptions(spec::IdentityCodec{})}) {
    ExchangeRun run{.model = model, .ranks = ranks, .steps = 2, .scale = 1.0f / 3};
    run.options.communication.codec = codec;
    run.options.communication.bucket_bytes = 12'000;
    run.options.communication.error_feedback = true;
    run.options.communication.hash_check_interval_steps = 1;
    run.options.seed = 77;
    const ExchangeOutcome expected = RunExchange(run);
    ExpectOk(expected);
    SKIP_WITHOUT_DEVICE(OnRanks(ranks, kTimeout, [&](std::unique_ptr<Communicator> communicator) {
      TestGradients gradients(model, kernels::Device::kCuda);
      ExchangeOptions options = run.options;
      options.compute = &gradients.compute;
      ASSERT_OK_AND_ASSIGN(auto exchange, GradientExchange::Create(options, gradients.layers, communicator.get()));
      for (int64_t step = 0; step < run.steps; ++step) {
        FillGaussian(communicator->rank(), step, &gradients.values);
        exchange->Begin(step, run.scale);
        for (int layer = static_cast<int>(gradients.layers.size()) - 1; layer >= 0; --layer) {
          gradients.Backward(layer);
          exchange->LayerReady(layer);
        }
        ASSERT_OK(exchange->Wait());
        gradients.Fetch();
      }
      EXPECT_TRUE(gradients.values == expected.values[static_cast<size_t>(communicator->rank())]);
    }));
  }
}

TEST_P(NcclContractTest, RanksLeaveOneAfterTheOther) {
  SKIP_WITHOUT_DEVICE(OnRanks(GetParam(), kTimeout, [](std::unique_ptr<Communicator> communicator) {
    std::vector<float> values = contract::Input(communicator->rank(), 100001);
    ASSERT_OK(communicator->AllReduceSum(contract::View(values), 1.0f));
    communicator.reset();
  }));
}

TEST_P(NcclContractTest, SurvivorsOfAKilledRankFailAtOnceAndSayWhy) {
  SKIP_WITHOUT_DEVICE(OnRanks(
      GetParam(), kTimeout,
      [](std::unique_ptr<Communicator> communicator) {
        std::vector<float> values(1 << 20);
        ASSERT_OK(communicator->AllReduceSum(contract::View(values), 1.0f));
        if (communicator->rank() == 1) kill(getpid(), SIGKILL);
        const absl::Time start = absl::Now();
        const absl::Status status = communicator->AllReduceSum(contract::View(values), 1.0f);
        EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable,
                                     HasSubstr(absl::StrCat("all-reduce on rank ", communicator->rank()))));
        EXPECT_FALSE(communicator->Barrier().ok());
        EXPECT_LT(absl::Now() - start, absl::Seconds(10));
      },
      /*killed=*/1));
}

TEST_P(NcclContractTest, AnAbsentPeerRunsIntoTheTimeout) {
  SKIP_WITHOUT_DEVICE(OnRanks(GetParam(), absl::Seconds(3), [](std::unique_ptr<Communicator> communicator) {
    if (communicator->rank() == 0) {  // there, but silent
      absl::SleepFor(absl::Seconds(6));
      return;
    }
    std::vector<float> values(1000);
    const absl::Time start = absl::Now();
    EXPECT_FALSE(communicator->AllReduceSum(contract::View(values), 1.0f).ok());
    EXPECT_LT(absl::Now() - start, absl::Seconds(6));
  }));
}

}  // namespace
}  // namespace trainyard::comm
