// Trainings whose state the ranks share out (training.shard) beside those in which every rank has everything.
#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <numeric>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/test_stream.h"
#include "worker/comm/testing/ranks.h"
#include "worker/train/gradient_slots.h"
#include "worker/train/plan.h"
#include "worker/train/testing/tiny_run.h"

namespace trainyard::train {
namespace {

using comm::Transport;
using kernels::Device;
using kernels::DType;
using kernels::TensorView;
using kernels::testing::DeviceUnderTest;
using spec::Shard;
using ::testing::HasSubstr;
using testing::TinyTraining;

using Bytes = std::vector<uint8_t>;

const testing::TinyDataset& Dataset() {
  static const auto* const dataset = new testing::TinyDataset;
  return *dataset;
}

spec::OptimizerOptions SmallMoments() {
  spec::AdamWOptions options;
  options.first_moment = spec::MomentType::kE4M3;
  options.second_moment = spec::MomentType::kBf16;
  return options;
}

// Matrices whose sizes no rank count divides, and norms shorter than a grain, which one rank has alone.
TrainerOptions Options(Shard shard, const spec::OptimizerOptions& optimizer = spec::AdamWOptions{},
                       DType dtype = DType::kF32) {
  TrainerOptions options = testing::TinyTrainerOptions(optimizer);
  options.config.hidden_size = 36;
  options.config.intermediate_size = 52;
  options.config.layers = 3;
  options.config.qkv_bias = true;
  options.training.shard = shard;
  options.training.clip_norm = 0.5;  // below the norms of the first steps
  options.dtype = dtype;
  if (dtype == DType::kBF16) options.training.linear.scheme = spec::LinearBf16{};
  options.device = DeviceUnderTest();
  if (options.device != Device::kCpu) options.config.layers = 1;  // an emulated device takes its time
  return options;
}

// What the ranks had when it ended.
struct Outcome {
  std::vector<std::vector<StepResult>> results;  // by rank
  std::vector<Bytes> weights;                    // by rank: as the network reads them
  std::map<std::string, Bytes> state;            // whole, from the ranks' parts
};

Bytes BytesOf(const TensorView& tensor) {
  const auto* const begin = static_cast<const uint8_t*>(tensor.data());
  return Bytes(begin, begin + tensor.bytes());
}

// The checkpoint of a rank goes into `state`.
void Collect(const Trainer& trainer, std::map<std::string, Bytes>* state) {
  for (const optim::NamedTensor& named : trainer.state()) {
    const auto width = static_cast<int64_t>(kernels::SizeOf(named.tensor.dtype()));
    const int64_t whole = named.whole_size > 0 ? named.whole_size : named.tensor.size();
    Bytes& bytes = (*state)[named.name];
    bytes.resize(static_cast<size_t>(whole * width));
    std::memcpy(bytes.data() + named.part_begin * width, named.tensor.data(),
                static_cast<size_t>(named.tensor.bytes()));
  }
}

// What of it a rank wants.
void Restore(const std::map<std::string, Bytes>& state, const Trainer& trainer) {
  for (const optim::NamedTensor& named : trainer.state()) {
    const Bytes& bytes = state.at(named.name);
    const auto offset = static_cast<size_t>(named.part_begin) * kernels::SizeOf(named.tensor.dtype());
    ASSERT_LE(offset + static_cast<size_t>(named.tensor.bytes()), bytes.size());
    std::memcpy(named.tensor.data(), bytes.data() + offset, static_cast<size_t>(named.tensor.bytes()));
  }
}

struct TestRun {
  TrainerOptions options;
  int ranks = 1;
  int steps = 4;
  int resume_at = 0;  // above 0: saved there, and resumed
  Shard resumed_shard = Shard::kNone;
  Transport transport = Transport::kLocal;
  comm::ExchangeOptions exchange = {};
  std::function<void(int rank, TinyTraining&)> at_end = nullptr;
};

Outcome Train(TestRun run) {
  const auto count = static_cast<size_t>(run.ranks);
  Outcome outcome{std::vector<std::vector<StepResult>>(count), std::vector<Bytes>(count), {}};
  run.exchange.communication.bucket_bytes = 10'000;
  run.exchange.communication.hash_check_interval_steps = 1;
  std::map<std::string, Bytes> saved;
  std::vector<std::string> texts(count);
  std::vector<data::LoaderPosition> positions(count);
  const auto make = [&](int rank) {
    TrainerOptions options = run.options;
    options.rank = rank;
    options.ranks = run.ranks;
    return TinyTraining(Dataset(), options, rank, run.ranks);
  };
  const auto on_ranks = [&](const std::function<void(int, TinyTraining&, comm::Communicator*)>& body) {
    auto communicators = comm::MakeRanks(run.transport, run.ranks);
    std::vector<TinyTraining> trainings(count);
    for (int rank = 0; rank < run.ranks; ++rank) trainings[static_cast<size_t>(rank)] = make(rank);
    comm::RunThreads(run.ranks, [&](int rank) {
      const auto r = static_cast<size_t>(rank);
      body(rank, trainings[r], communicators[r].get());
    });
    return trainings;
  };
  if (run.resume_at > 0) {
    const std::vector<TinyTraining> first =
        on_ranks([&](int rank, TinyTraining& own, comm::Communicator* communicator) {
          const auto r = static_cast<size_t>(rank);
          if (run.ranks > 1) TY_CHECK_OK(own.trainer->Connect(run.exchange, communicator));
          outcome.results[r] = own.Results(run.resume_at);
          texts[r] = own.trainer->StateText();
          positions[r] = own.loader->position();
        });
    for (const TinyTraining& training : first) Collect(*training.trainer, &saved);
    run.options.training.shard = run.resumed_shard;
  }
  const std::vector<TinyTraining> last = on_ranks([&](int rank, TinyTraining& own, comm::Communicator* communicator) {
    const auto r = static_cast<size_t>(rank);
    if (run.resume_at > 0) {
      Restore(saved, *own.trainer);
      TY_CHECK_OK(own.trainer->RestoreState(texts[r]));
      TY_CHECK_OK(own.loader->Restore(positions[r]));
    }
    if (run.ranks > 1) TY_CHECK_OK(own.trainer->Connect(run.exchange, communicator));
    for (const StepResult& result : own.Results(run.steps - run.resume_at)) outcome.results[r].push_back(result);
    for (const TensorView& weight : own.trainer->weights().all) {
      const Bytes bytes = BytesOf(weight);
      outcome.weights[r].insert(outcome.weights[r].end(), bytes.begin(), bytes.end());
    }
    if (run.at_end) run.at_end(rank, own);
  });
  for (const TinyTraining& training : last) Collect(*training.trainer, &outcome.state);
  return outcome;
}

void ExpectSameBits(const Outcome& a, const Outcome& b, const std::string& what) {
  ASSERT_EQ(a.results.size(), b.results.size());
  for (size_t rank = 0; rank < a.results.size(); ++rank) {
    ASSERT_EQ(a.results[rank].size(), b.results[rank].size());
    for (size_t step = 0; step < a.results[rank].size(); ++step) {
      EXPECT_EQ(a.results[rank][step].loss, b.results[rank][step].loss) << what << ": step " << step;
      EXPECT_EQ(a.results[rank][step].gradient_norm, b.results[rank][step].gradient_norm) << what << ": step " << step;
    }
    EXPECT_TRUE(a.weights[rank] == b.weights[0]) << what << ": weights of rank " << rank;
  }
  EXPECT_TRUE(a.state == b.state) << what << ": state";
}

std::string NameOf(Shard shard) {
  return shard == Shard::kNone ? "none" : shard == Shard::kZero1 ? "zero1" : "grads";
}

struct Kind {
  std::string name;
  spec::OptimizerOptions optimizer;
  DType dtype;
};

std::vector<Kind> Kinds() {
  if (DeviceUnderTest() != Device::kCpu) return {{"small_moments_bf16", SmallMoments(), DType::kBF16}};
  return {{"adamw_f32", spec::AdamWOptions{}, DType::kF32},     {"adamw_bf16", spec::AdamWOptions{}, DType::kBF16},
          {"small_moments_bf16", SmallMoments(), DType::kBF16}, {"small_moments_f32", SmallMoments(), DType::kF32},
          {"sgd_bf16", spec::SgdOptions{}, DType::kBF16},       {"sgd_f32", spec::SgdOptions{}, DType::kF32}};
}

std::vector<int> RankCounts() {
  return DeviceUnderTest() == Device::kCpu ? std::vector<int>{1, 2, 3} : std::vector<int>{2};
}

TEST(ShardedTrainingTest, ShardsShowInNoBit) {
  for (const Kind& kind : Kinds()) {
    for (const int ranks : RankCounts()) {
      TestRun run{.options = Options(Shard::kNone, kind.optimizer, kind.dtype), .ranks = ranks, .steps = 3};
      const Outcome none = Train(run);
      EXPECT_GT(none.results[0][0].gradient_norm, run.options.training.clip_norm);
      for (const Shard shard : {Shard::kZero1, Shard::kGrads}) {
        run.options.training.shard = shard;
        ExpectSameBits(Train(run), none, kind.name + NameOf(shard) + std::to_string(ranks));
      }
    }
  }
}

// With recomputing, chunks, threads, and a head tied to the embedding, whose gradient grows all through the backward.
TEST(ShardedTrainingTest, NorWithOtherMemoryOptions) {
  TestRun run{.options = Options(Shard::kNone, spec::AdamWOptions{}, DType::kBF16), .ranks = 2, .steps = 3};
  run.options.config.tied_head = true;
  const Outcome none = Train(run);
  run.options.threads = 2;
  run.options.training.recompute = spec::Recompute::kBlock;
  run.options.training.lm_head_chunks = 2;
  for (const Shard shard : {Shard::kZero1, Shard::kGrads}) {
    run.options.training.shard = shard;
    ExpectSameBits(Train(run), none, NameOf(shard));
  }
}

// What a rank has of the state may live on the host. On devices only.
TEST(ShardedTrainingTest, NorWithStateOnTheHost) {
  if (DeviceUnderTest() == Device::kCpu) GTEST_SKIP() << "on the CPU all memory is the host's";
  TestRun run{.options = Options(Shard::kNone, SmallMoments(), DType::kBF16), .ranks = 2, .steps = 2};
  run.options.config.layers = 3;
  run.options.training.recompute = spec::Recompute::kBlock;
  const Outcome none = Train(run);
  run.options.training.offload = {.moments = true, .master = true, .residuals = true};
  for (const Shard shard : {Shard::kNone, Shard::kZero1, Shard::kGrads}) {
    run.options.training.shard = shard;
    ExpectSameBits(Train(run), none, NameOf(shard));
  }
}

TEST(ShardedTrainingTest, NorOverGloo) {
  if (DeviceUnderTest() != Device::kCpu) GTEST_SKIP() << "the transport does not know devices";
  TestRun run{.options = Options(Shard::kNone, spec::AdamWOptions{}, DType::kBF16), .ranks = 3, .steps = 2};
  const Outcome none = Train(run);
  run.transport = Transport::kGloo;
  for (const Shard shard : {Shard::kZero1, Shard::kGrads}) {
    run.options.training.shard = shard;
    ExpectSameBits(Train(run), none, NameOf(shard));
  }
}

// zero1 adds micro-batches up before they travel, as every training does. With grads each travels by itself, so sums
// are made in another order: other bits, the same gradient.
TEST(ShardedTrainingTest, AccumulationIsExactWithZero1AndNearWithGrads) {
  TestRun run{.options = Options(Shard::kNone), .ranks = 2, .steps = 3};
  run.options.training.accumulation = 2;
  const Outcome none = Train(run);
  run.options.training.shard = Shard::kZero1;
  ExpectSameBits(Train(run), none, "zero1");
  run.options.training.shard = Shard::kGrads;
  const Outcome grads = Train(run);
  EXPECT_TRUE(grads.weights[0] == grads.weights[1]);
  EXPECT_EQ(grads.results[0][0].loss, none.results[0][0].loss);
  for (size_t step = 0; step < 3; ++step) {
    EXPECT_NEAR(grads.results[0][step].loss, none.results[0][step].loss, 1e-4);
    EXPECT_NEAR(grads.results[0][step].gradient_norm, none.results[0][step].gradient_norm,
                1e-4 * none.results[0][step].gradient_norm);
  }
  ExpectSameBits(Train(run), grads, "again");
}

// Coded sums go to all ranks, so the coded exchange is the unsharded one.
TEST(ShardedTrainingTest, Zero1TakesCodecs) {
  TestRun run{.options = Options(Shard::kNone), .ranks = 2, .steps = 3};
  run.exchange.communication.codec = spec::MaxminCodec{4, 64};
  run.exchange.communication.min_elements = 256;
  const Outcome none = Train(run);
  run.options.training.shard = Shard::kZero1;
  ExpectSameBits(Train(run), none, "zero1");
}

// A checkpoint in parts is that of the whole: what was written with one sharding goes on with any other.
TEST(ShardedTrainingTest, AResumedRunEqualsTheUndisturbedOne) {
  const Kind kind = {"small_moments_bf16", SmallMoments(), DType::kBF16};
  for (const int ranks : RankCounts()) {
    TestRun run{.options = Options(Shard::kNone, kind.optimizer, kind.dtype), .ranks = ranks};
    const Outcome undisturbed = Train(run);
    const std::vector<std::pair<Shard, Shard>> pairs = {{Shard::kZero1, Shard::kZero1},
                                                        {Shard::kGrads, Shard::kGrads},
                                                        {Shard::kZero1, Shard::kNone},
                                                        {Shard::kNone, Shard::kGrads}};
    for (const auto& [before, after] : pairs) {
      run.options.training.shard = before;
      run.resume_at = 2;
      run.resumed_shard = after;
      ExpectSameBits(Train(run), undisturbed, NameOf(before) + " then " + NameOf(after));
    }
  }
}

int64_t Rounded(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// The formulas of docs/training-memory.md.
TEST(ShardedTrainingTest, MemoryAndTrafficAreThoseOfThePlan) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Shard shard : {Shard::kZero1, Shard::kGrads}) {
      for (const int accumulation : {1, 2}) {
        TestRun run{.options = Options(shard, spec::AdamWOptions{}, dtype), .ranks = 3, .steps = 2};
        run.options.training.accumulation = accumulation;
        spec::CommunicationOptions communication;
        communication.bucket_bytes = 10'000;
        ASSERT_OK_AND_ASSIGN(const TrainingPlan plan, PlanTraining(run.options, communication, run.ranks));
        std::vector<int64_t> moments(3);
        run.at_end = [&](int rank, TinyTraining& own) {
          const Trainer& trainer = *own.trainer;
          const kernels::MemoryPlan memory = trainer.memory_plan();
          const auto book = [&](const char* name) { return memory.count(name) > 0 ? memory.at(name) : 0; };
          int64_t part_bytes = 0, whole_bytes = 0, elements = 0;
          for (const model::Parameter& parameter : trainer.parameters()) {
            const int64_t part = comm::ShardMap({parameter.size()}, 3).part(0, rank).size();
            part_bytes += Rounded(4 * part);
            whole_bytes += Rounded(4 * parameter.size());
            elements += parameter.size();
          }
          moments[static_cast<size_t>(rank)] = book("moments");
          EXPECT_EQ(book("moments"), 2 * part_bytes);
          EXPECT_EQ(book("master"), dtype == DType::kF32 ? 0 : part_bytes);
          EXPECT_EQ(book("weights"),
                    dtype == DType::kF32
                        ? whole_bytes
                        : Trainer::Plan(Options(Shard::kNone, spec::AdamWOptions{}, dtype)).at("weights"));
          if (shard == Shard::kZero1) {
            EXPECT_EQ(book("gradients"), Rounded(4 * elements));
          } else {
            // Two blocks, one of embedding and head with the norm, and the parts.
            std::map<int, int64_t> layers;
            for (const model::Parameter& parameter : trainer.parameters()) layers[parameter.layer] += parameter.size();
            const int64_t blocks = 2 - (layers.size() == 3 ? 1 : 0);
            EXPECT_EQ(book("gradients"),
                      blocks * Rounded(4 * layers.at(1)) + Rounded(4 * layers.rbegin()->second) + part_bytes);
          }
          const comm::ExchangeStats stats = trainer.exchange()->stats();
          // Connect sends the weights once more than the steps.
          const int64_t connecting = trainer.gather_stats().bytes_sent - run.steps * trainer.GatherBytesPerStep();
          EXPECT_GT(connecting, 0);
          EXPECT_LT(connecting, trainer.GatherBytesPerStep());
          if (rank != 0) return;
          EXPECT_EQ((stats.phase1_bytes + stats.phase2_bytes) / run.steps + trainer.GatherBytesPerStep(),
                    plan.wire_bytes_per_step);
          EXPECT_EQ(trainer.GatherBytesPerStep(), plan.gather_bytes_per_step);
          for (const char* name : {"weights", "gradients", "moments", "activations", "workspace"}) {
            EXPECT_EQ(book(name), plan.memory.at(name)) << name;
          }
          EXPECT_EQ(book("communication") + trainer.exchange()->workspace_bytes(), plan.memory.at("communication"));
        };
        Train(run);
        // A third each, but for what is short of a grain.
        const int64_t whole = Trainer::Plan(Options(Shard::kNone, spec::AdamWOptions{}, dtype)).at("moments");
        EXPECT_EQ(*std::max_element(moments.begin(), moments.end()), moments[0]);
        EXPECT_LT(moments[0], 0.37 * static_cast<double>(whole));
        EXPECT_NEAR(static_cast<double>(std::accumulate(moments.begin(), moments.end(), int64_t{0})),
                    static_cast<double>(whole), 0.01 * static_cast<double>(whole));
      }
    }
  }
}

TEST(ShardedTrainingTest, OneRankKeepsEverything) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const kernels::MemoryPlan none = Trainer::Plan(Options(Shard::kNone, spec::AdamWOptions{}, dtype));
    EXPECT_EQ(Trainer::Plan(Options(Shard::kZero1, spec::AdamWOptions{}, dtype)), none);
    EXPECT_EQ(Trainer::Plan(Options(Shard::kGrads, spec::AdamWOptions{}, dtype)), none);
  }
}

TEST(ShardedTrainingTest, RefusesWhatCannotBeSharedOut) {
  for (const Shard shard : {Shard::kZero1, Shard::kGrads}) {
    TrainerOptions options = Options(shard);
    options.ranks = 2;
    spec::TrionOptions trion;
    trion.subspace.rank = 4;
    for (const spec::OptimizerOptions& optimizer :
         {spec::OptimizerOptions(trion), spec::OptimizerOptions(spec::EcoOptions{})}) {
      options.training.optimizer = optimizer;
      EXPECT_THAT(Trainer::Check(options), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("training.shard")));
      options.ranks = 1;
      EXPECT_OK(Trainer::Check(options));
      options.ranks = 2;
    }
  }
  spec::CommunicationOptions coded;
  coded.types = {{"attention", "", spec::CodecOptions(spec::MaxminCodec{})}};
  EXPECT_OK(PlanTraining(Options(Shard::kZero1), coded, 2));
  EXPECT_THAT(PlanTraining(Options(Shard::kGrads), coded, 2),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("training.shard: grads")));
}

// Under policy skip a NaN drops the update on all ranks, so weights that differ stay so: the check of hashes sees it.
TEST(ShardedTrainingTest, WeightsThatDifferAreFound) {
  TrainerOptions options = Options(Shard::kZero1);
  options.training.nan_policy = spec::NanPolicy::kSkip;
  auto communicators = comm::MakeRanks(Transport::kLocal, 2);
  comm::RunThreads(2, [&](int rank) {
    TrainerOptions own_options = options;
    own_options.rank = rank;
    own_options.ranks = 2;
    TinyTraining own(Dataset(), own_options, rank, 2);
    comm::ExchangeOptions exchange;
    exchange.communication.hash_check_interval_steps = 1;
    TY_CHECK_OK(own.trainer->Connect(exchange, communicators[static_cast<size_t>(rank)].get()));
    own.Results(1);
    if (rank == 1) own.trainer->weights().all[2].as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THAT(own.trainer->Step(*own.loader), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("rank")));
  });
}

TEST(GradientSlotsTest, LayersTakeTurns) {
  for (const bool tied : {false, true}) {
    TrainerOptions options = Options(Shard::kGrads);
    options.config.layers = 5;
    options.config.tied_head = tied;
    options.config.blocks.assign(5, options.config.block_shape(0));
    options.config.blocks[2] = model::BlockShape{};  // layer 3 has nothing
    kernels::Arena counting = kernels::Arena::CountOnly();
    const GradientSlots slots = AllocateGradientSlots(options.config, counting);
    // Layers 5 and 2 share a slot, and 4 and 1: the alternation skips layer 3.
    EXPECT_THAT(slots.previous, ::testing::ElementsAre(tied ? -1 : 6, 4, 5, -1, -1, -1, -1));
    const std::vector<model::Parameter> parameters = ListParameters(options.config);
    std::map<int, const void*> begin;
    for (size_t i = 0; i < parameters.size(); ++i) begin.emplace(parameters[i].layer, slots.tensors.all[i].data());
    EXPECT_EQ(begin.at(5), begin.at(2));
    EXPECT_EQ(begin.at(4), begin.at(1));
    EXPECT_NE(begin.at(5), begin.at(4));
    EXPECT_EQ(begin.at(0) == begin.at(6), !tied);
  }
}

}  // namespace
}  // namespace trainyard::train
