// What an exchange changes about its codecs while it runs, and that a restored run goes on as it would have.
#include "worker/comm/adaptation.h"

#include <cmath>
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/comm/testing/exchanging.h"

namespace trainyard::comm {
namespace {

using spec::CodecOptions;
using spec::MaxminCodec;

const TestModel kModel = {{{"embedding.weight", 100, 41}},
                          {{"layers.0.qkv.weight", 64, 48}, {"layers.0.norm.weight", 64}},
                          {{"layers.0.down.weight", 96, 64}}};

TEST(AdaptationTest, Schedules) {
  spec::LevelsCodec levels;
  levels.refit_steps = {0, 20};
  levels.refit_interval_steps = 50;
  std::vector<int64_t> refits;
  for (int64_t step = 0; step < 160; ++step) {
    if (IsRefitStep(levels, step)) refits.push_back(step);
  }
  EXPECT_THAT(refits, ::testing::ElementsAre(0, 20, 50, 100, 150));
  spec::LgrecoOptions plan;
  plan.interval_steps = 10;
  plan.window_steps = 3;
  for (int64_t step = 0; step < 40; ++step) {
    EXPECT_EQ(IsInWindow(plan, step), step % 10 >= 7) << step;
    EXPECT_EQ(IsPlanStep(plan, step), step % 10 == 9) << step;
  }
}

// Gaussian data, L-inf, 4 bits, bucket 512: .0363 with uniform levels, .0236 with fitted ones (qoda.md 5.5).
TEST(AdaptationTest, FittedLevelsLoseAsMuchLessAsTheyShould) {
  spec::LevelsCodec levels;
  levels.refit_steps = {0};
  ExchangeRun run{.model = {{{"layers.0.down.weight", 512, 512}}}, .ranks = 3, .steps = 17};
  run.options.communication.codec = levels;
  std::vector<std::string> texts(3);
  run.after = [&](int rank, int64_t step, GradientExchange& exchange, std::vector<float>&) {
    const double error = exchange.stats().squared_error.at("mlp");
    if (step == 0) {
      EXPECT_NEAR(error, .0363, .0363 * .03);
    }
    if (step == 16) {
      EXPECT_NEAR(error, .0236, .0236 * .03);
      EXPECT_EQ(exchange.stats().plan_epoch, 1);
    }
    texts[static_cast<size_t>(rank)] = exchange.StateText();
  };
  const ExchangeOutcome outcome = RunExchange(run);
  ExpectOk(outcome);
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_EQ(texts[0], texts[2]);
  EXPECT_EQ(outcome.values[0], outcome.values[2]);
  EXPECT_GT(outcome.stats[0].control_bytes, 0);
}

// The embedding's gradient is much larger, so its error dominates: more bits there, fewer elsewhere, fewer bytes.
TEST(AdaptationTest, LgrecoMovesBitsToWhereTheErrorIs) {
  ExchangeRun run{.model = kModel, .ranks = 2, .steps = 9};
  run.options.communication.codec = MaxminCodec{4, 64};
  run.options.communication.plan = spec::LgrecoOptions{1.0, 4, 2, 2, 8};
  run.fill = [](int rank, int64_t step, std::vector<float>* values) {
    FillGaussian(rank, step, values);
    for (size_t i = 0; i < 4100; ++i) (*values)[i] *= 5;
  };
  std::map<int64_t, int64_t> bytes;
  run.after = [&](int rank, int64_t step, GradientExchange& exchange, std::vector<float>&) {
    const ExchangeStats stats = exchange.stats();
    if (rank == 0) bytes[step] = stats.phase1_bytes;
    EXPECT_EQ(stats.plan_epoch, step < 3 ? 0 : 1 + (stats.plan_epoch > 1 ? 1 : 0)) << step;
    if (step < 3) {
      EXPECT_EQ(stats.bits.at("mlp"), 4);
    } else {
      EXPECT_GE(stats.bits.at("embedding"), 5) << step;
      EXPECT_LT(stats.bits.at("mlp"), 4);
    }
  };
  const ExchangeOutcome outcome = RunExchange(run);
  ExpectOk(outcome);
  EXPECT_EQ(outcome.values[0], outcome.values[1]);
  // Takes effect with step 4, the first after the plan.
  EXPECT_EQ(bytes[3] - bytes[2], bytes[1] - bytes[0]);
  EXPECT_LT(bytes[4] - bytes[3], bytes[1] - bytes[0]);
}

// The same values for fewer bytes (3.44 of 4 bits, quantized-comm.md 2.10), in each kind of exchange.
TEST(AdaptationTest, HuffmanSavesBytesAndChangesNoBit) {
  for (const spec::ExchangeKind kind :
       {spec::ExchangeKind::kSra, spec::ExchangeKind::kAllGather, spec::ExchangeKind::kRing}) {
    for (const Transport transport : {Transport::kLocal, Transport::kGloo}) {
      ExchangeRun run{.model = {{{"layers.0.down.weight", 300, 257}}}, .ranks = 3, .transport = transport, .steps = 3};
      run.options.communication.codec = MaxminCodec{4, 512};
      run.options.communication.exchange = kind;
      const ExchangeOutcome plain = RunExchange(run);
      run.options.communication.entropy_coding = spec::EntropyCoding::kHuffman;
      const ExchangeOutcome coded = RunExchange(run);
      ExpectOk(coded);
      EXPECT_EQ(coded.values, plain.values);
      // One step of three is still at fixed length; what is coded twice by a ring counts fully.
      const double saved =
          1.0 - static_cast<double>(coded.stats[0].phase1_bytes) / static_cast<double>(plain.stats[0].phase1_bytes);
      EXPECT_NEAR(saved, 2.0 / 3 * .14 * .97, .02) << static_cast<int>(kind);
    }
  }
}

// The whole state: error feedback, a window under way, planned bits, fitted levels, code tables.
TEST(AdaptationTest, ARestoredExchangeGoesOnWithTheBitsOfAnUndisturbedOne) {
  ExchangeRun run{.model = kModel, .ranks = 3, .steps = 13};
  run.options.communication.codec = MaxminCodec{3, 64};
  run.options.communication.error_feedback = true;
  run.options.communication.entropy_coding = spec::EntropyCoding::kHuffman;
  run.options.communication.plan = spec::LgrecoOptions{1.0, 5, 4, 2, 8};
  spec::LevelsCodec levels;
  levels.refit_steps = {0, 6, 9};
  run.options.communication.types = {{"attention", "", CodecOptions(levels)}};
  for (const int64_t stop : {1, 5, 7, 8}) {  // before, at and after changes, and within a window
    std::vector<std::map<std::string, std::vector<float>>> saved(3);
    std::vector<std::string> texts(3);
    run.first_step = 0;
    run.steps = 13;
    run.begin = nullptr;
    run.after = [&](int rank, int64_t step, GradientExchange& exchange, std::vector<float>&) {
      if (step + 1 != stop) return;
      for (const NamedState& state : exchange.local_state()) {
        const float* const data = state.tensor.as<float>();
        saved[static_cast<size_t>(rank)][state.name].assign(data, data + state.tensor.size());
      }
      texts[static_cast<size_t>(rank)] = exchange.StateText();
    };
    const ExchangeOutcome undisturbed = RunExchange(run);
    ExpectOk(undisturbed);
    EXPECT_GE(undisturbed.stats[0].plan_epoch, 3);
    run.first_step = stop;
    run.steps = 13 - stop;
    run.after = nullptr;
    run.begin = [&](int rank, GradientExchange& exchange) {
      for (const NamedState& state : exchange.local_state()) {
        const std::vector<float>& values = saved[static_cast<size_t>(rank)].at(state.name);
        std::copy(values.begin(), values.end(), state.tensor.as<float>());
      }
      EXPECT_OK(exchange.RestoreState(texts[static_cast<size_t>(rank)]));
    };
    const ExchangeOutcome restored = RunExchange(run);
    ExpectOk(restored);
    EXPECT_EQ(restored.values, undisturbed.values) << stop;
    EXPECT_EQ(restored.stats[0].plan_epoch, undisturbed.stats[0].plan_epoch);
  }
}

TEST(AdaptationTest, DamagedStateIsRefused) {
  ExchangeRun run{.model = kModel, .ranks = 2};
  run.options.communication.codec = MaxminCodec{};
  run.begin = [](int, GradientExchange& exchange) {
    const std::string good = exchange.StateText();
    for (const std::string& bad :
         std::vector<std::string>{"", "codecs 1", good + "\nlevels 0 4 1 2 3", good + "\ncode 1 4 zz", "x" + good,
                                  "codecs 1\nepoch 1\nbits 4 4", good + "\nfoo 1 2 3"}) {
      EXPECT_THAT(exchange.RestoreState(bad), StatusIs(absl::StatusCode::kDataLoss, ::testing::_)) << bad;
    }
    EXPECT_EQ(exchange.StateText(), good);
    EXPECT_OK(exchange.RestoreState(good));
  };
  ExpectOk(RunExchange(run));
}

}  // namespace
}  // namespace trainyard::comm
