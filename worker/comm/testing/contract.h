// What every implementation of Communicator promises about data, as checks that each rank runs on its own communicator,
// in a thread or a process of its own.
#pragma once

#include <numeric>
#include <string>
#include <vector>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/core/philox.h"
#include "worker/comm/communicator.h"
#include "worker/comm/partition.h"

namespace trainyard::comm::contract {

using kernels::BFloat16;
using kernels::DType;
using kernels::TensorView;

// Values of very different size, so that a sum in another order has other bits.
inline std::vector<float> Input(int rank, int64_t count) {
  static constexpr float kSizesOfValues[] = {1.0f, 0x1p20f, 0x1p-9f, 0x1p11f, 0x1p4f, 0x1p-17f, 0x1p7f};
  std::vector<float> values;
  uint32_t state = 12345u + static_cast<uint32_t>(rank) * 7919u;  // a small generator of our own keeps this quick
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    values.push_back((kernels::ToUniform(state) - 0.5f) * kSizesOfValues[(i + rank) % 7]);
  }
  return values;
}

// The formula of communicator.h.
inline std::vector<float> SumOfInputs(int ranks, int64_t count, float scale) {
  std::vector<float> sum = Input(0, count);
  for (int rank = 1; rank < ranks; ++rank) {
    const std::vector<float> next = Input(rank, count);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += next[i];
  }
  for (float& value : sum) value *= scale;
  return sum;
}

inline TensorView View(std::vector<float>& values) {
  return TensorView(values.data(), DType::kF32, {static_cast<int64_t>(values.size())});
}

// 2^18 floats are two chunks a rank in the pipeline of two gloo ranks; odd sizes make parts unequal.
inline constexpr int64_t kSizes[] = {0, 1, 7, 1000, 12345, (1 << 18) + 13};

inline void AllReduceIsTheSumInRankOrderBitForBit(Communicator& communicator) {
  const int ranks = communicator.size();
  for (int64_t count : kSizes) {
    for (float scale : {1.0f, 1.0f / 3.0f}) {
      std::vector<float> values = Input(communicator.rank(), count);
      ASSERT_OK(communicator.AllReduceSum(View(values), scale));
      ASSERT_EQ(values, SumOfInputs(ranks, count, scale)) << count;
    }
  }
}

inline void AllReduceOfBf16RoundsOnce(Communicator& communicator) {
  const int ranks = communicator.size();
  for (int64_t count : kSizes) {
    // Inputs that bf16 holds exactly, so that the f32 sum of inputs is the one to round.
    std::vector<BFloat16> values(static_cast<size_t>(count));
    std::vector<float> sum(static_cast<size_t>(count));
    for (int rank = 0; rank < ranks; ++rank) {
      const std::vector<float> input = Input(rank, count);
      for (size_t i = 0; i < values.size(); ++i) {
        const BFloat16 narrow = kernels::FromFloat<BFloat16>(input[i]);
        sum[i] = rank == 0 ? kernels::ToFloat(narrow) : sum[i] + kernels::ToFloat(narrow);
        if (rank == communicator.rank()) values[i] = narrow;
      }
    }
    ASSERT_OK(communicator.AllReduceSum(TensorView(values.data(), DType::kBF16, {count}), 0.5f));
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(values[i].bits, kernels::FromFloat<BFloat16>(sum[i] * 0.5f).bits) << i;
    }
  }
}

inline void ReduceScatterAndAllGatherAreTheHalvesOfAllReduce(Communicator& communicator) {
  const int ranks = communicator.size();
  for (int64_t count : kSizes) {
    std::vector<float> values = Input(communicator.rank(), count);
    const std::vector<float> before = values;
    const std::vector<float> sum = SumOfInputs(ranks, count, 0.25f);
    ASSERT_OK(communicator.ReduceScatterSum(View(values), 0.25f));
    const Part own = PartOf(count, ranks, communicator.rank());
    for (int64_t i = 0; i < count; ++i) {
      const size_t at = static_cast<size_t>(i);
      ASSERT_EQ(values[at], i >= own.begin && i < own.end ? sum[at] : before[at]) << i;
    }
    ASSERT_OK(communicator.AllGatherParts(View(values)));
    ASSERT_EQ(values, sum);
  }
}

inline void AllGatherKeepsRankOrderForUnequalAndEmptyPieces(Communicator& communicator) {
  const int ranks = communicator.size();
  for (int64_t unit : {0, 1, 1000, 333333}) {
    std::vector<int64_t> bytes;  // rank 1 gives nothing
    std::string expected;
    for (int rank = 0; rank < ranks; ++rank) {
      bytes.push_back(rank == 1 ? 0 : unit * (rank + 1));
      expected += std::string(static_cast<size_t>(bytes.back()), static_cast<char>('a' + rank));
    }
    const std::string own(static_cast<size_t>(bytes[static_cast<size_t>(communicator.rank())]),
                          static_cast<char>('a' + communicator.rank()));
    std::string all(expected.size(), '.');
    ASSERT_OK(communicator.AllGatherBytes(own.data(), bytes, all.data()));
    ASSERT_EQ(all, expected);
    // In place.
    all.assign(expected.size(), '.');
    const auto begin = std::accumulate(bytes.begin(), bytes.begin() + communicator.rank(), int64_t{0});
    all.replace(static_cast<size_t>(begin), own.size(), own);
    ASSERT_OK(communicator.AllGatherBytes(all.data() + begin, bytes, all.data()));
    ASSERT_EQ(all, expected);
  }
}

inline void AllGatherStringsAndBroadcastString(Communicator& communicator) {
  const int ranks = communicator.size();
  const auto text = [](int rank) {
    return std::string(static_cast<size_t>(rank * 100), static_cast<char>('a' + rank));
  };
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> all, AllGatherStrings(communicator, text(communicator.rank())));
  ASSERT_EQ(all.size(), static_cast<size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) EXPECT_EQ(all[static_cast<size_t>(rank)], text(rank));
  for (int root = 0; root < ranks; ++root) {
    ASSERT_OK_AND_ASSIGN(const std::string got, BroadcastString(communicator, text(communicator.rank()), root));
    EXPECT_EQ(got, text(root));
  }
}

inline void AllToAllMovesEveryBlock(Communicator& communicator) {
  const int ranks = communicator.size();
  for (int64_t unit : {0, 1, 1001, 200000}) {
    // From s to r: (s + 2 r) * unit bytes of a letter that names both.
    const auto length = [&](int from, int to) { return from == to ? 0 : (from + 2 * to) * unit; };
    const auto letter = [](int from, int to) { return static_cast<char>('A' + from * 8 + to); };
    Communicator::Blocks blocks;
    std::string in, expected;
    for (int peer = 0; peer < ranks; ++peer) {
      blocks.in_offsets.push_back(static_cast<int64_t>(in.size()));
      blocks.send_bytes.push_back(length(communicator.rank(), peer));
      in += std::string(static_cast<size_t>(blocks.send_bytes.back()), letter(communicator.rank(), peer));
      blocks.out_offsets.push_back(static_cast<int64_t>(expected.size()));
      blocks.recv_bytes.push_back(length(peer, communicator.rank()));
      expected += std::string(static_cast<size_t>(blocks.recv_bytes.back()), letter(peer, communicator.rank()));
    }
    std::string out(expected.size(), '.');
    blocks.in = in.data();
    blocks.out = out.data();
    ASSERT_OK(communicator.AllToAllBytes(blocks));
    ASSERT_EQ(out, expected);
  }
}

inline void BroadcastFromEveryRoot(Communicator& communicator) {
  const int ranks = communicator.size();
  for (int64_t count : kSizes) {
    for (int root = 0; root < ranks; ++root) {
      std::vector<float> values = Input(communicator.rank(), count);
      ASSERT_OK(communicator.Broadcast(values.data(), count * 4, root));
      ASSERT_EQ(values, Input(root, count));
    }
  }
}

inline void MessagesOfOneTagKeepTheirOrderAndTagsDoNotMix(Communicator& communicator) {
  const int ranks = communicator.size();
  // Around the ring; even ranks send first, so no two wait for each other.
  const int to = (communicator.rank() + 1) % ranks, from = (communicator.rank() + ranks - 1) % ranks;
  if (to == communicator.rank()) return;
  const auto send = [&] {
    for (int i = 0; i < 4; ++i) {
      std::vector<float> values = Input(communicator.rank() * 10 + i, 5000);
      ASSERT_OK(communicator.Send(values.data(), 20000, to, static_cast<uint32_t>(i % 2)));
    }
  };
  const auto receive = [&] {
    for (int i = 0; i < 4; ++i) {
      std::vector<float> values(5000);
      ASSERT_OK(communicator.Recv(values.data(), 20000, from, static_cast<uint32_t>(i % 2)));
      ASSERT_EQ(values, Input(from * 10 + i, 5000));
    }
  };
  if (communicator.rank() % 2 == 0) {
    send();
    receive();
  } else {
    receive();
    send();
  }
}

// The formula of AllReduceSum's comment, for a size that divides evenly.
inline void TrafficOfAnAllReduceIsTwiceTheForeignParts(Communicator& communicator) {
  const int ranks = communicator.size();
  std::vector<float> values(96000);
  const Traffic before = communicator.traffic();  // a rendezvous may have talked already
  ASSERT_OK(communicator.AllReduceSum(View(values), 1.0f));
  const Traffic after = communicator.traffic();
  EXPECT_EQ(after.bytes_sent - before.bytes_sent, 2 * (ranks - 1) * (96000 * 4 / ranks));
  EXPECT_EQ(after.bytes_received - before.bytes_received, 2 * (ranks - 1) * (96000 * 4 / ranks));
}

}  // namespace trainyard::comm::contract
