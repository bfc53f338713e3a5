// The exchange with gradients on the device under test: the bits of the CPU, whatever codec, exchange and transport.
// With TY_TEST_DEVICE=cuda that is a CUDA device; without, both are the CPU, and the test holds that a run repeats.
#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/test_stream.h"
#include "worker/comm/testing/exchanging.h"

namespace trainyard::comm {
namespace {

using kernels::testing::DeviceUnderTest;
using spec::CodecOptions;
using spec::ExchangeKind;
using spec::MaxminCodec;
using spec::Rounding;

// Layers of odd sizes, in several buckets: a matrix that part borders cut, vectors, a layer without parameters.
const TestModel kModel = {{{"embedding.weight", 53, 37}},
                          {},
                          {{"layers.0.qkv.weight", 67, 33}, {"layers.0.attention_norm.weight", 31}},
                          {{"layers.0.down.weight", 60, 41}, {"layers.0.tiny.weight", 5, 9}, {"layers.0.x.bias", 3}}};

ExchangeRun RunOf(CodecOptions codec, ExchangeKind kind = ExchangeKind::kSra, int ranks = 2) {
  ExchangeRun run{.model = kModel, .ranks = ranks, .steps = 2, .scale = 1.0f / 3};
  run.options.communication.codec = std::move(codec);
  run.options.communication.exchange = kind;
  run.options.communication.bucket_bytes = 12'000;
  run.options.communication.error_feedback = true;
  run.options.communication.hash_check_interval_steps = 1;
  run.options.seed = 77;
  return run;
}

// Runs it on the CPU and on the device; returns what the device made of it.
ExchangeOutcome ExpectBitsOfTheCpu(ExchangeRun run) {
  const ExchangeOutcome cpu = RunExchange(run);
  ExpectOk(cpu);
  run.device = DeviceUnderTest();
  ExchangeOutcome device = RunExchange(run);
  ExpectOk(device);
  EXPECT_TRUE(device.values == cpu.values);
  EXPECT_TRUE(device.contributions == cpu.contributions);
  for (size_t rank = 0; rank < cpu.stats.size(); ++rank) {
    EXPECT_EQ(device.stats[rank].bytes_sent, cpu.stats[rank].bytes_sent);
    EXPECT_EQ(device.stats[rank].phase1_bytes, cpu.stats[rank].phase1_bytes);
    EXPECT_EQ(device.stats[rank].squared_error, cpu.stats[rank].squared_error);
    EXPECT_EQ(device.stats[rank].plan_epoch, cpu.stats[rank].plan_epoch);
  }
  return device;
}

TEST(DeviceExchangeTest, EveryCodecAndExchange) {
  spec::LevelsCodec levels;
  levels.table = spec::LevelTable::kExponential;
  levels.norm = spec::LevelNorm::kL2;
  for (const CodecOptions& codec :
       {CodecOptions(MaxminCodec{3, 64, Rounding::kStochastic}), CodecOptions(MaxminCodec{4, 512, Rounding::kNearest}),
        CodecOptions(levels), CodecOptions(spec::SignMeanCodec{}), CodecOptions(spec::TopKCodec{0.1}),
        CodecOptions(spec::IdentityCodec{})}) {
    for (const ExchangeKind kind : {ExchangeKind::kSra, ExchangeKind::kAllGather, ExchangeKind::kRing}) {
      SCOPED_TRACE(absl::StrCat(spec::NameOf(codec), " ", static_cast<int>(kind)));
      ExpectBitsOfTheCpu(RunOf(codec, kind));
    }
  }
}

TEST(DeviceExchangeTest, OneAndThreeRanks) {
  for (const int ranks : {1, 3}) {
    ExchangeRun run = RunOf(MaxminCodec{}, ExchangeKind::kSra, ranks);
    run.options.keeps_contribution = true;
    ExpectBitsOfTheCpu(run);
  }
}

TEST(DeviceExchangeTest, ContributionsOfEveryExchange) {
  for (const ExchangeKind kind : {ExchangeKind::kSra, ExchangeKind::kAllGather, ExchangeKind::kRing}) {
    ExchangeRun run = RunOf(MaxminCodec{3, 64}, kind);
    run.options.keeps_contribution = true;
    ExpectBitsOfTheCpu(run);
  }
}

// bf16 gradients are widened, coded and rounded; and summed as they are.
TEST(DeviceExchangeTest, NarrowGradients) {
  for (const CodecOptions& codec : {CodecOptions(MaxminCodec{}), CodecOptions(spec::IdentityCodec{})}) {
    for (const ExchangeKind kind : {ExchangeKind::kSra, ExchangeKind::kAllGather}) {
      ExchangeRun run = RunOf(codec, kind);
      run.dtype = kernels::DType::kBF16;
      ExpectBitsOfTheCpu(run);
    }
  }
}

// Levels are fitted, bits planned and code tables made from what is on the device.
TEST(DeviceExchangeTest, WhatAdaptsAdaptsAlike) {
  ExchangeRun levels = RunOf(spec::LevelsCodec{});
  levels.options.communication.entropy_coding = spec::EntropyCoding::kHuffman;
  levels.steps = 3;
  EXPECT_GT(ExpectBitsOfTheCpu(levels).stats[0].plan_epoch, 0);
  ExchangeRun plan = RunOf(MaxminCodec{4, 64});
  plan.options.communication.plan = spec::LgrecoOptions{.alpha = 2, .interval_steps = 2, .window_steps = 2};
  plan.steps = 3;
  EXPECT_GT(ExpectBitsOfTheCpu(plan).stats[0].plan_epoch, 0);
}

TEST(DeviceExchangeTest, Factors) {
  ExchangeRun run = RunOf(spec::PowerSgdCodec{2, 1, 1.5});
  run.steps = 3;
  ExpectBitsOfTheCpu(run);
}

TEST(DeviceExchangeTest, OverGloo) {
  for (const CodecOptions& codec : {CodecOptions(MaxminCodec{}), CodecOptions(spec::IdentityCodec{})}) {
    ExchangeRun run = RunOf(codec);
    run.transport = Transport::kGloo;
    ExpectBitsOfTheCpu(run);
  }
}

// A value that is not finite reaches all ranks, and the feedback does not keep it.
TEST(DeviceExchangeTest, NonFiniteValuesReachAllRanksAndDoNotPoisonTheFeedback) {
  for (const CodecOptions& codec :
       {CodecOptions(MaxminCodec{}), CodecOptions(spec::SignMeanCodec{}), CodecOptions(spec::TopKCodec{0.1})}) {
    ExchangeRun run = RunOf(codec);
    run.device = DeviceUnderTest();
    run.steps = 3;
    run.fill = [](int rank, int64_t step, std::vector<float>* values) {
      FillGaussian(rank, step, values);
      if (rank == 1 && step == 1) (*values)[200] = std::numeric_limits<float>::infinity();
    };
    run.after = [](int, int64_t step, GradientExchange& exchange, std::vector<float>& values) {
      EXPECT_EQ(std::isnan(values[200]), step == 1) << step;
      for (const NamedState& state : exchange.local_state()) {
        for (int64_t i = 0; i < state.tensor.size(); ++i) ASSERT_TRUE(std::isfinite(state.tensor.as<float>()[i]));
      }
    };
    ExpectOk(RunExchange(run));
  }
}

}  // namespace
}  // namespace trainyard::comm
