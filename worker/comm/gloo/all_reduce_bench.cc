// Bus bandwidth of the gloo all-reduce over loopback: 2 (R-1)/R of the data a second and rank, as build tables count
// it.
//   bazel run --config=opt //worker/comm/gloo:all_reduce_bench -- [ranks=2] [mebibytes=16] [rounds=20]
// Each rank is a process.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "worker/comm/rendezvous.h"

namespace trainyard::comm {
namespace {

void RunRank(int rank, int ranks, int64_t floats, int rounds, int in, int out) {
  RendezvousOptions options;
  options.tag = {"bench", 1, 1};
  options.rank = rank;
  options.world_size = ranks;
  auto rendezvous = Rendezvous::Create(options);
  TY_CHECK_OK(rendezvous);
  const std::string& own = (*rendezvous)->LocalAddress();
  TY_CHECK_EQ(write(out, own.data(), own.size()), static_cast<ssize_t>(own.size()));
  std::vector<std::string> table(static_cast<size_t>(ranks), std::string(own.size(), '\0'));
  for (std::string& blob : table) {
    for (size_t got = 0; got < blob.size();) got += static_cast<size_t>(read(in, blob.data() + got, blob.size() - got));
  }
  auto communicators = (*rendezvous)->Connect(table, 1);
  TY_CHECK_OK(communicators);
  std::vector<float> values(static_cast<size_t>(floats), 1.0f);
  absl::Duration start;
  for (int round = -3; round < rounds; ++round) {
    if (round == 0) start = RealClock()->Monotonic();
    TY_CHECK_OK(communicators->data->AllReduceSum(kernels::TensorView(values.data(), kernels::DType::kF32, {floats}),
                                                  1.0f / static_cast<float>(ranks)));
  }
  const double seconds = absl::ToDoubleSeconds(RealClock()->Monotonic() - start) / rounds;
  if (rank == 0) {
    std::printf("%d ranks, %.1f MB: %.2f ms, bus %.0f MB/s\n", ranks, static_cast<double>(floats) * 4e-6, seconds * 1e3,
                2.0 * (ranks - 1) / ranks * static_cast<double>(floats) * 4e-6 / seconds);
  }
  TY_CHECK_OK(communicators->data->Barrier());
}

}  // namespace
}  // namespace trainyard::comm

int main(int argc, char** argv) {
  const int ranks = argc > 1 ? std::atoi(argv[1]) : 2;
  const int64_t floats = (argc > 2 ? std::atoll(argv[2]) : 16) << 18;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 20;
  std::vector<int> to_ranks, from_ranks;
  for (int rank = 0; rank < ranks; ++rank) {
    int to_rank[2], from_rank[2];
    TY_CHECK_EQ(pipe(to_rank), 0);
    TY_CHECK_EQ(pipe(from_rank), 0);
    if (fork() == 0) {
      trainyard::comm::RunRank(rank, ranks, floats, rounds, to_rank[0], from_rank[1]);
      return 0;
    }
    to_ranks.push_back(to_rank[1]);
    from_ranks.push_back(from_rank[0]);
  }
  std::string table;
  for (int from : from_ranks) {
    char blob[1 << 16];
    const ssize_t bytes = read(from, blob, sizeof(blob));
    TY_CHECK_GE(bytes, 1);
    table.append(blob, static_cast<size_t>(bytes));
  }
  for (int to : to_ranks) TY_CHECK_EQ(write(to, table.data(), table.size()), static_cast<ssize_t>(table.size()));
  for (int rank = 0; rank < ranks; ++rank) wait(nullptr);
  return 0;
}
