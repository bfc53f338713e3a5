// Exchanges that stop half way, and the gathers that follow: what each rank gets is, bit by bit, its part of what the
// all-reduce leaves. With TY_TEST_DEVICE=cuda the gradients are a device's.
#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/test_stream.h"
#include "worker/comm/exchange_plan.h"
#include "worker/comm/part_gather.h"
#include "worker/comm/testing/exchanging.h"

namespace trainyard::comm {
namespace {

using kernels::DType;
using kernels::TensorView;
using kernels::testing::DeviceUnderTest;

// ---- who has what ----

TEST(ShardMapTest, PartsCoverEachTensorInGrains) {
  for (const int64_t size :
       {1, 2, 3, 127, 128, 129, 255, 256, 257, 1000, 131'072, 131'073, 1'000'003, 40'000'000, 2'000'000'001}) {
    const int64_t grain = ShardGrain(size);
    EXPECT_EQ(grain & (grain - 1), 0);
    EXPECT_GE(grain, 128);  // the moments' groups of 128 are never cut
    EXPECT_LE(grain, std::max<int64_t>(128, size / 512));
    for (const int ranks : {1, 2, 3, 7, 64}) {
      const ShardMap map({size}, ranks);
      int64_t end = 0, longest = 0, shortest = size, grains = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Part part = map.part(0, rank);
        EXPECT_EQ(part.begin, end);
        EXPECT_EQ(part.begin % (part.size() == 0 ? 1 : grain), 0);
        EXPECT_EQ(map.grains(0, rank), (part.size() + grain - 1) / grain);
        end = part.end;
        longest = std::max(longest, part.size());
        shortest = std::min(shortest, part.size());
        grains += map.grains(0, rank);
      }
      EXPECT_EQ(end, size);
      EXPECT_EQ(grains, (size + grain - 1) / grain) << size << " over " << ranks;
      EXPECT_EQ(map.part(0, 0).size(), longest);
      EXPECT_LT(longest - shortest, 2 * grain);  // one grain more, and the last grain is short
    }
  }
}

TEST(ShardMapTest, ShortTensorsTravelTogether) {
  constexpr int64_t kMost = kTensorRunBytes;
  std::vector<std::pair<size_t, size_t>> cuts;
  for (const TensorRun& run : CutIntoRuns({kMost / 2, kMost / 2, 4, kMost + 4, 8, 8, kMost})) {
    cuts.emplace_back(run.first, run.last);
  }
  using Cut = std::pair<size_t, size_t>;
  EXPECT_THAT(cuts, ::testing::ElementsAre(Cut{0, 2}, Cut{2, 3}, Cut{3, 4}, Cut{4, 6}, Cut{6, 7}));
  EXPECT_TRUE(CutIntoRuns({}).empty());
}

// ---- scatter ----

// Tensors shorter than a grain, than the ranks, of odd sizes, and one that is a run of its own.
const TestModel kModel = {{{"embedding.weight", 263, 251}},
                          {},
                          {{"layers.0.qkv.weight", 67, 33}, {"layers.0.attention_norm.weight", 31}},
                          {{"layers.0.down.weight", 130, 41}, {"layers.0.one", 1}, {"layers.0.x.bias", 129}}};

ShardMap MapOf(const TestModel& model, int ranks) {
  std::vector<int64_t> sizes;
  for (const auto& layer : model) {
    for (const TestTensor& tensor : layer) sizes.push_back(tensor.elements());
  }
  return ShardMap(sizes, ranks);
}

enum class Place { kInGradients, kElsewhere };

struct ScatterOutcome {
  std::vector<std::vector<float>> parts;  // by rank: tensor after tensor
  std::vector<ExchangeStats> stats;
};

// `rounds` exchanges, each added to what the one before left.
ScatterOutcome RunScatter(const TestModel& model, int ranks, Place place, int rounds, Transport transport) {
  ScatterOutcome outcome{std::vector<std::vector<float>>(static_cast<size_t>(ranks)),
                         std::vector<ExchangeStats>(static_cast<size_t>(ranks))};
  auto communicators = MakeRanks(transport, ranks);
  RunThreads(ranks, [&](int rank) {
    const auto r = static_cast<size_t>(rank);
    TestGradients gradients(model, DeviceUnderTest());
    ExchangeOptions options;
    options.communication.bucket_bytes = 20'000;
    if (DeviceUnderTest() != kernels::Device::kCpu) options.compute = &gradients.compute;
    ScatterOptions& scatter = options.scatter.emplace();
    scatter.map = MapOf(model, ranks);
    scatter.by_layer = place == Place::kElsewhere;
    scatter.accumulates = rounds > 1;
    ExchangeMemory memory(MemoryKindOf(gradients.compute));
    int64_t elements = 0;
    for (size_t i = 0; i < scatter.map.tensors(); ++i) elements += scatter.map.part(i, rank).size();
    ASSERT_OK(memory.Grow(std::max<int64_t>(1, elements) * 4));
    float* next = memory.floats();
    size_t index = 0;
    for (const GradientLayer& layer : gradients.layers) {
      for (const GradientTensor& tensor : layer.tensors) {
        const Part part = scatter.map.part(index++, rank);
        if (part.size() == 0) {
          scatter.parts.emplace_back();
        } else if (place == Place::kInGradients) {
          const TensorView flat = tensor.gradient.Reshape({tensor.gradient.size()});
          scatter.parts.push_back(flat.Slice(part.begin, part.size()));
        } else {
          scatter.parts.push_back(TensorView(next, DType::kF32, {part.size()}));
          next += part.size();
        }
      }
    }
    auto exchange = GradientExchange::Create(options, gradients.layers, communicators[r].get());
    ASSERT_OK(exchange);
    const int last = static_cast<int>(gradients.layers.size()) - 1;
    for (int round = 0; round < rounds; ++round) {
      FillGaussian(rank, round, &gradients.values);
      (*exchange)->Begin(0, 1.0f / static_cast<float>(ranks), /*accumulate=*/round > 0);
      for (int layer = last; layer >= 0; --layer) {
        gradients.Backward(layer);
        (*exchange)->LayerReady(layer);
        if (scatter.by_layer && layer < last) (*exchange)->WaitForLayer(layer + 1);
      }
      ASSERT_OK((*exchange)->Wait());
    }
    for (const TensorView& part : scatter.parts) {
      if (part) outcome.parts[r].insert(outcome.parts[r].end(), part.as<float>(), part.as<float>() + part.size());
    }
    outcome.stats[r] = (*exchange)->stats();

    const absl::StatusOr<ExchangePlan> plan = PlanExchange(options, gradients.layers, rank, ranks);
    ASSERT_OK(plan);
    EXPECT_EQ(plan->sent.phase1 * rounds, outcome.stats[r].bytes_sent);
    EXPECT_EQ(plan->sent.phase2, 0);
    EXPECT_EQ(plan->uncoded_bytes, plan->sent.phase1);
    // Gloo keeps a little for other calls.
    if (transport == Transport::kLocal) {
      EXPECT_EQ(plan->workspace_bytes, (*exchange)->workspace_bytes());
    }
    EXPECT_EQ(plan->sent.phase1, (ElementsOf(model) - static_cast<int64_t>(outcome.parts[r].size())) * 4);
  });
  return outcome;
}

// The same by all-reduce, and cut afterwards.
std::vector<std::vector<float>> PartsOfAllReduce(const TestModel& model, int ranks, int rounds) {
  ExchangeRun run{.model = model, .ranks = ranks, .scale = 1.0f / static_cast<float>(ranks)};
  const ShardMap map = MapOf(model, ranks);
  std::vector<std::vector<float>> parts(static_cast<size_t>(ranks));
  std::vector<float> sum;
  for (int round = 0; round < rounds; ++round) {
    run.first_step = round;
    const ExchangeOutcome outcome = RunExchange(run);
    ExpectOk(outcome);
    if (round == 0) sum = outcome.values[0];
    for (size_t i = 0; round > 0 && i < sum.size(); ++i) sum[i] += outcome.values[0][i];
  }
  for (int rank = 0; rank < ranks; ++rank) {
    const float* tensor = sum.data();
    for (size_t i = 0; i < map.tensors(); ++i) {
      const Part part = map.part(i, rank);
      parts[static_cast<size_t>(rank)].insert(parts[static_cast<size_t>(rank)].end(), tensor + part.begin,
                                              tensor + part.end);
      tensor += map.size(i);
    }
  }
  return parts;
}

TEST(ScatterTest, PartsHaveTheBitsOfTheAllReduce) {
  for (const int ranks : {2, 3, 4}) {
    const std::vector<std::vector<float>> expected = PartsOfAllReduce(kModel, ranks, 1);
    for (const Place place : {Place::kInGradients, Place::kElsewhere}) {
      EXPECT_TRUE(RunScatter(kModel, ranks, place, 1, Transport::kLocal).parts == expected) << ranks;
    }
  }
}

TEST(ScatterTest, RoundsAreAddedUpInOrder) {
  EXPECT_TRUE(RunScatter(kModel, 3, Place::kElsewhere, 3, Transport::kLocal).parts == PartsOfAllReduce(kModel, 3, 3));
}

TEST(ScatterTest, OverGlooToo) {
  for (const int ranks : {2, 3}) {
    EXPECT_TRUE(RunScatter(kModel, ranks, Place::kElsewhere, 2, Transport::kGloo).parts ==
                PartsOfAllReduce(kModel, ranks, 2));
  }
}

TEST(ScatterTest, RanksOfDifferentKindsDoNotMeet) {
  auto communicators = MakeRanks(Transport::kLocal, 2);
  RunThreads(2, [&](int rank) {
    TestGradients gradients(kModel);
    ExchangeOptions options;
    if (rank == 0) {
      ScatterOptions& scatter = options.scatter.emplace();
      scatter.map = MapOf(kModel, 2);
      scatter.parts.resize(scatter.map.tensors());
    }
    EXPECT_EQ(GradientExchange::Create(options, gradients.layers, communicators[static_cast<size_t>(rank)].get())
                  .status()
                  .code(),
              absl::StatusCode::kFailedPrecondition);
  });
}

// ---- gather ----

TEST(PartGatherTest, EveryRankGetsEveryPart) {
  for (const Transport transport : {Transport::kLocal, Transport::kGloo}) {
    for (const int ranks : {2, 3}) {
      auto communicators = MakeRanks(transport, ranks);
      const std::vector<int64_t> sizes = {70'001, 5, 300, 1, 128, 1000, 90'000};  // the first is a run of its own
      RunThreads(ranks, [&](int rank) {
        kernels::Stream stream(DeviceUnderTest(), 1);
        std::vector<ExchangeMemory> memory;
        std::vector<TensorView> tensors;
        const ShardMap map(sizes, ranks);
        for (size_t i = 0; i < sizes.size(); ++i) {
          const DType dtype = i % 2 == 0 ? DType::kF32 : DType::kBF16;
          memory.emplace_back(MemoryKindOf(stream));
          ASSERT_OK(memory.back().Grow(sizes[i] * 4));
          tensors.push_back(TensorView(memory.back().data(), dtype, {sizes[i]}));
          const auto width = static_cast<int64_t>(kernels::SizeOf(dtype));
          // Own elements tell their place; the others are wrong.
          for (int64_t b = 0; b < tensors[i].bytes(); ++b) {
            const bool is_own = b / width >= map.part(i, rank).begin && b / width < map.part(i, rank).end;
            memory.back().data()[b] = is_own ? static_cast<char>(b * 7 + static_cast<int64_t>(i)) : 'x';
          }
        }
        Communicator& communicator = *communicators[static_cast<size_t>(rank)];
        const PartGather gather(tensors, map, rank);
        ExchangeMemory workspace(MemoryKindOf(stream));
        ASSERT_OK(workspace.Grow(gather.WorkspaceBytes()));
        EXPECT_LE(gather.WorkspaceBytes(), kTensorRunBytes);
        const int64_t before = communicator.traffic().bytes_sent;
        ASSERT_OK(
            gather.Gather(TensorView(workspace.data(), DType::kU8, {gather.WorkspaceBytes()}), communicator, stream));
        ASSERT_OK(stream.Synchronize());
        EXPECT_EQ(communicator.traffic().bytes_sent - before, gather.BytesSent());
        for (size_t i = 0; i < tensors.size(); ++i) {
          int64_t wrong = 0;
          for (int64_t b = 0; b < tensors[i].bytes(); ++b) {
            wrong += memory[i].data()[b] != static_cast<char>(b * 7 + static_cast<int64_t>(i));
          }
          EXPECT_EQ(wrong, 0) << "tensor " << i << " of rank " << rank;
        }
      });
    }
  }
}

}  // namespace
}  // namespace trainyard::comm
