// The exchange with lossy codecs: errors, bytes and agreement of ranks against the formulas of
// shared/methods/quantized-comm.md 2.4 and 5.
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/comm/exchange_plan.h"
#include "worker/comm/testing/exchanging.h"

namespace trainyard::comm {
namespace {

using spec::CodecOptions;
using spec::ExchangeKind;
using spec::MaxminCodec;
using spec::Rounding;

ExchangeOptions Options(CodecOptions codec, ExchangeKind kind = ExchangeKind::kSra, int phase2_bits = 8) {
  ExchangeOptions options;
  options.communication.codec = std::move(codec);
  options.communication.exchange = kind;
  options.communication.phase2_bits = phase2_bits;
  options.seed = 77;
  return options;
}

// Layers of odd sizes: a matrix that part borders cut, vectors, a small matrix, one layer without parameters.
const TestModel kModel = {{{"embedding.weight", 101, 37}},
                          {},
                          {{"layers.0.qkv.weight", 67, 33}, {"layers.0.attention_norm.weight", 31}},
                          {{"layers.0.down.weight", 130, 41}, {"layers.0.tiny.weight", 5, 9}, {"layers.0.x.bias", 3}}};

int64_t Align8(int64_t bytes) {
  return (bytes + 7) / 8 * 8;
}
// C(n, b, B) of quantized-comm.md 2.2.
int64_t MaxminBytes(int64_t n, int bits, int64_t bucket) {
  return 8 * ((n + bucket - 1) / bucket) + Align8((n * bits + 7) / 8);
}

TEST(QuantizedExchangeTest, TheFormulaOfTheWireFormat) {
  EXPECT_EQ(MaxminBytes(1000, 4, 512), 520);
  EXPECT_EQ(MaxminBytes(250'000, 4, 512), 128'912);
}

// Every exchange and codec, 1 to 4 ranks, parts that cut tensors: equal bits on all ranks, run after run, and sums that
// are what was summed.
TEST(QuantizedExchangeTest, RanksHoldEqualBitsWhateverTheCodecLoses) {
  spec::LevelsCodec levels;
  levels.table = spec::LevelTable::kExponential;
  const std::vector<CodecOptions> codecs = {MaxminCodec{3, 64, Rounding::kStochastic},
                                            MaxminCodec{4, 512, Rounding::kNearest}, levels, spec::SignMeanCodec{},
                                            spec::TopKCodec{0.1}};
  for (const CodecOptions& codec : codecs) {
    for (const ExchangeKind kind : {ExchangeKind::kSra, ExchangeKind::kAllGather, ExchangeKind::kRing}) {
      for (const int ranks : {1, 2, 3, 4}) {
        for (const bool feedback : {false, true}) {
          ExchangeRun run{.model = kModel, .options = Options(codec, kind), .ranks = ranks, .steps = 2};
          run.options.communication.bucket_bytes = 20'000;  // several buckets
          run.options.communication.error_feedback = feedback;
          const ExchangeOutcome outcome = RunExchange(run);
          const ExchangeOutcome again = RunExchange(run);
          ExpectOk(outcome);
          for (const std::vector<float>& values : outcome.values) {
            ASSERT_EQ(values, outcome.values[0]) << spec::NameOf(codec) << " " << static_cast<int>(kind) << ranks;
            for (float value : values) ASSERT_TRUE(std::isfinite(value));
          }
          ASSERT_EQ(outcome.values, again.values);
        }
      }
    }
  }
}

TEST(QuantizedExchangeTest, GlooGivesTheBitsOfLocal) {
  for (const ExchangeKind kind : {ExchangeKind::kSra, ExchangeKind::kAllGather, ExchangeKind::kRing}) {
    for (const int ranks : {2, 3}) {
      ExchangeRun run{.model = kModel, .options = Options(MaxminCodec{}, kind), .ranks = ranks};
      const ExchangeOutcome local = RunExchange(run);
      run.transport = Transport::kGloo;
      const ExchangeOutcome gloo = RunExchange(run);
      ExpectOk(gloo);
      EXPECT_EQ(gloo.values, local.values);
      for (size_t rank = 0; rank < local.stats.size(); ++rank) {
        EXPECT_EQ(gloo.stats[rank].bytes_sent, local.stats[rank].bytes_sent);
      }
    }
  }
}

// 2.4's table: squared error over |sum|^2 of independent Gaussians, K = 4, B = 512. Within 3 %.
TEST(QuantizedExchangeTest, ErrorsAreThoseOfTheFormulas) {
  const TestModel model = {{{"layers.0.down.weight", 650, 1001}}};
  const int64_t n = ElementsOf(model);
  std::vector<double> sum(static_cast<size_t>(n));
  std::vector<float> one(sum.size());
  for (int rank = 0; rank < 4; ++rank) {
    FillGaussian(rank, 0, &one);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(one[i]);
  }
  const auto squared_error = [&](const ExchangeOptions& options) {
    const ExchangeOutcome outcome = RunExchange({.model = model, .options = options, .ranks = 4, .fill = FillGaussian});
    double error = 0, energy = 0;
    for (size_t i = 0; i < sum.size(); ++i) {
      error += std::pow(static_cast<double>(outcome.values[0][i]) - sum[i], 2);
      energy += sum[i] * sum[i];
    }
    // What the exchange says about itself: phase 1 alone, c = .02755 at 4 bits.
    EXPECT_NEAR(outcome.stats[1].squared_error.at("mlp"),
                std::get<MaxminCodec>(options.communication.codec).bits == 4 ? .02755 : 9.53e-5,
                std::get<MaxminCodec>(options.communication.codec).bits == 4 ? .0008 : 3e-6);
    return error / energy;
  };
  const MaxminCodec four{4, 512, Rounding::kStochastic}, eight{8, 512, Rounding::kStochastic};
  EXPECT_NEAR(squared_error(Options(four, ExchangeKind::kSra, 4)), .0488, .0015);
  EXPECT_NEAR(squared_error(Options(eight, ExchangeKind::kSra, 8)), 1.668e-4, 5e-6);
  EXPECT_NEAR(squared_error(Options(four, ExchangeKind::kSra, 8)), .0208, .0006);
  EXPECT_NEAR(squared_error(Options(four, ExchangeKind::kRing)), .071, .0021);
  EXPECT_NEAR(squared_error(Options(four, ExchangeKind::kAllGather)), .0275, .0008);
}

TEST(QuantizedExchangeTest, AMillionValuesSendTheKnownNumberOfBytes) {
  const TestModel model = {{{"layers.0.down.weight", 1000, 1000}}};
  const auto sent = [&](const ExchangeOptions& options) {
    return RunExchange({.model = model, .options = options, .ranks = 4}).stats[2].bytes_sent;
  };
  EXPECT_EQ(sent(Options(MaxminCodec{}, ExchangeKind::kSra, 4)), 773'472);
  EXPECT_EQ(sent(Options(spec::IdentityCodec{})), 6'000'000);
}

// Counters against sums of C over slices, worked out here, and against the plan.
TEST(QuantizedExchangeTest, CountersEqualTheSumOfCAndThePlan) {
  for (const ExchangeKind kind : {ExchangeKind::kSra, ExchangeKind::kAllGather, ExchangeKind::kRing}) {
    for (const int ranks : {2, 3, 4}) {
      ExchangeRun run{.model = kModel, .options = Options(MaxminCodec{3, 64}, kind, 5), .ranks = ranks, .steps = 3};
      // All in one bucket, whose parts are cut like this:
      const auto bytes_of_part = [&](int part, int bits) {
        const Part range =
            kind == ExchangeKind::kAllGather ? Part{0, ElementsOf(kModel)} : PartOf(ElementsOf(kModel), ranks, part);
        int64_t bytes = 0, at = 0;
        for (const auto& layer : kModel) {
          for (const TestTensor& tensor : layer) {
            const int64_t begin = std::max(range.begin, at), end = std::min(range.end, at + tensor.elements());
            const bool coded = tensor.cols > 0 && tensor.elements() >= 1024;
            if (begin < end) bytes += coded ? MaxminBytes(end - begin, bits, 64) : Align8(4 * (end - begin));
            at += tensor.elements();
          }
        }
        return bytes;
      };
      const ExchangeOutcome outcome = RunExchange(run);
      for (int rank = 0; rank < ranks; ++rank) {
        int64_t phase1 = 0, phase2 = 0;
        if (kind == ExchangeKind::kAllGather) {
          phase1 = (ranks - 1) * bytes_of_part(0, 3);
        } else {
          for (int part = 0; part < ranks; ++part) phase1 += part == rank ? 0 : bytes_of_part(part, 3);
          phase2 = (ranks - 1) * bytes_of_part(rank, kind == ExchangeKind::kSra ? 5 : 3);
        }
        const ExchangeStats& stats = outcome.stats[static_cast<size_t>(rank)];
        EXPECT_EQ(stats.phase1_bytes, 3 * phase1) << ranks << " " << rank;
        EXPECT_EQ(stats.phase2_bytes, 3 * phase2) << ranks << " " << rank;
        EXPECT_EQ(stats.control_bytes, 0);
        // By codec they are all there; what is not coded is as many bytes in every exchange.
        const auto sum = [](const std::map<std::string, int64_t>& by_codec) {
          return std::accumulate(by_codec.begin(), by_codec.end(), int64_t{0},
                                 [](int64_t total, const auto& entry) { return total + entry.second; });
        };
        EXPECT_EQ(sum(stats.phase1_by_codec), stats.phase1_bytes);
        EXPECT_EQ(sum(stats.phase2_by_codec), stats.phase2_bytes);
        for (const auto& [codec, bytes] : stats.phase1_by_codec) {
          EXPECT_TRUE(codec == "maxmin" || codec == "none") << codec;
          if (kind != ExchangeKind::kAllGather || codec != "none") continue;
          int64_t uncoded = 0;
          for (const auto& layer : kModel) {
            for (const TestTensor& tensor : layer) {
              const bool coded = tensor.cols > 0 && tensor.elements() >= 1024;
              if (!coded) uncoded += Align8(4 * tensor.elements());
            }
          }
          EXPECT_EQ(bytes, 3 * (ranks - 1) * uncoded);
        }
        EXPECT_EQ(stats.bytes_sent, 3 * (phase1 + phase2));
        TestGradients gradients(kModel);
        ASSERT_OK_AND_ASSIGN(const ExchangePlan plan, PlanExchange(run.options, gradients.layers, rank, ranks));
        EXPECT_EQ(plan.sent.phase1, phase1);
        EXPECT_EQ(plan.sent.phase2, phase2);
      }
    }
  }
}

TEST(QuantizedExchangeTest, ThePlanKnowsTheMemory) {
  for (const CodecOptions& codec : {CodecOptions(MaxminCodec{}), CodecOptions(spec::PowerSgdCodec{2, 0, 1.5})}) {
    ExchangeRun run{.model = kModel, .options = Options(codec), .ranks = 3};
    run.options.communication.error_feedback = true;
    run.begin = [&](int rank, GradientExchange& exchange) {
      TestGradients gradients(kModel);
      ASSERT_OK_AND_ASSIGN(const ExchangePlan plan, PlanExchange(run.options, gradients.layers, rank, 3));
      EXPECT_EQ(exchange.state().bytes(), plan.state_bytes);
      EXPECT_GT(plan.state_bytes, 0);
      // The local transport holds nothing; a process' holds a piece of the own part from each peer.
      EXPECT_LE(exchange.workspace_bytes(), plan.workspace_bytes);
      EXPECT_GT(exchange.workspace_bytes(), plan.workspace_bytes / 4);
    };
    ExpectOk(RunExchange(run));
  }
}

// Constants, and values on the levels, lose nothing: the sum is exact (CGX's own test).
TEST(QuantizedExchangeTest, ConstantsAreSummedExactly) {
  for (const int bits : {2, 4, 8}) {
    ExchangeRun run{.model = {{{"a.weight", 3001, 7}}},
                    .options = Options(MaxminCodec{bits, 512}, ExchangeKind::kSra, bits),
                    .ranks = 4};
    run.fill = [](int rank, int64_t, std::vector<float>* values) {
      std::fill(values->begin(), values->end(), static_cast<float>(rank + 1));
    };
    const ExchangeOutcome outcome = RunExchange(run);
    for (const std::vector<float>& values : outcome.values) {
      for (float value : values) ASSERT_EQ(value, 10.0f);
    }
  }
}

// One rank's NaN or infinity reaches every rank, as NaN of the whole bucket, and is gone with the next step.
TEST(QuantizedExchangeTest, NonFiniteValuesReachAllRanksAndDoNotPoisonTheFeedback) {
  for (const CodecOptions& codec :
       {CodecOptions(MaxminCodec{}), CodecOptions(spec::SignMeanCodec{}), CodecOptions(spec::TopKCodec{0.1}),
        CodecOptions(spec::LevelsCodec{}), CodecOptions(spec::PowerSgdCodec{2, 0, 1.5})}) {
    for (const ExchangeKind kind : {ExchangeKind::kSra, ExchangeKind::kAllGather, ExchangeKind::kRing}) {
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        for (const int place : {3, 2000}) {  // in parts of different owners
          ExchangeRun run{.model = {{{"a.weight", 64, 48}}}, .options = Options(codec, kind), .ranks = 3, .steps = 3};
          run.options.communication.error_feedback = true;
          run.fill = [&](int rank, int64_t step, std::vector<float>* values) {
            FillGaussian(rank, step, values);
            if (rank == 1 && step == 1) (*values)[static_cast<size_t>(place)] = bad;
          };
          run.after = [&](int, int64_t step, GradientExchange& exchange, std::vector<float>& values) {
            const bool all_finite =
                std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
            EXPECT_EQ(all_finite, step != 1) << spec::NameOf(codec) << step;
            if (step == 1) {
              EXPECT_TRUE(std::isnan(values[static_cast<size_t>(place)]));
            }
            for (const NamedState& state : exchange.local_state()) {
              for (int64_t i = 0; i < state.tensor.size(); ++i) {
                ASSERT_TRUE(std::isfinite(state.tensor.as<float>()[i])) << spec::NameOf(codec) << step;
              }
            }
          };
          ExpectOk(RunExchange(run));
        }
      }
    }
  }
}

// Over the ranks, contributions add up to the sum; a rank's own part is exact with sra.
TEST(QuantizedExchangeTest, ContributionsAddUpToTheSum) {
  for (const ExchangeKind kind : {ExchangeKind::kSra, ExchangeKind::kAllGather, ExchangeKind::kRing}) {
    // Phase 2 exact, so that the sum is known; a ring codes it once more.
    ExchangeRun run{.model = kModel, .options = Options(MaxminCodec{3, 64}, kind, 32), .ranks = 3, .scale = 0.25f};
    run.options.keeps_contribution = true;
    const ExchangeOutcome outcome = RunExchange(run);
    ExpectOk(outcome);
    std::vector<float> own(outcome.values[0].size());
    for (size_t rank = 0; rank < 3; ++rank) {
      FillGaussian(static_cast<int>(rank), 0, &own);
      int64_t exact = 0;
      for (size_t i = 0; i < own.size(); ++i) exact += own[i] == outcome.contributions[rank][i];
      EXPECT_GE(exact, kind == ExchangeKind::kAllGather ? 79 : static_cast<int64_t>(own.size()) / 3);
      EXPECT_LT(exact, static_cast<int64_t>(own.size()) / 2);  // else nothing was coded
    }
    double error = 0, energy = 0;
    for (size_t i = 0; i < own.size(); ++i) {
      double sum = 0;
      for (size_t rank = 0; rank < 3; ++rank) sum += static_cast<double>(outcome.contributions[rank][i]);
      error += std::pow(0.25 * sum - static_cast<double>(outcome.values[1][i]), 2);
      energy += std::pow(0.25 * sum, 2);
    }
    EXPECT_LT(error / energy, kind == ExchangeKind::kRing ? .09 : 1e-12);
  }
}

TEST(QuantizedExchangeTest, OneRankSendsNothingAndContributesItsGradient) {
  ExchangeRun run{.model = kModel, .options = Options(MaxminCodec{2, 64}), .ranks = 1};
  run.options.keeps_contribution = true;
  const ExchangeOutcome outcome = RunExchange(run);
  std::vector<float> own(outcome.values[0].size());
  FillGaussian(0, 0, &own);
  EXPECT_EQ(outcome.values[0], own);
  EXPECT_EQ(outcome.contributions[0], own);
  EXPECT_EQ(outcome.stats[0].bytes_sent, 0);
}

TEST(QuantizedExchangeTest, TypesTravelByTheirOwnCodecs) {
  ExchangeRun run{.model = kModel, .options = Options(MaxminCodec{2, 64}, ExchangeKind::kSra, 32), .ranks = 2};
  run.options.communication.types = {{"embedding", "", CodecOptions(spec::IdentityCodec{})},
                                     {"mine", "layers.?.q*", CodecOptions(MaxminCodec{8, 64})}};
  const ExchangeOutcome outcome = RunExchange(run);
  ExpectOk(outcome);
  EXPECT_THAT(outcome.stats[0].bits,
              ::testing::UnorderedElementsAre(::testing::Pair("mine", 8.0), ::testing::Pair("mlp", 2.0)));
  std::vector<float> a(outcome.values[0].size()), b(a.size());
  FillGaussian(0, 0, &a);
  FillGaussian(1, 0, &b);
  for (size_t i = 0; i < 101 * 37; ++i) ASSERT_EQ(outcome.values[0][i], a[i] + b[i]);
  const auto& errors = outcome.stats[0].squared_error;
  EXPECT_LT(errors.at("mine"), 1e-4);
  EXPECT_GT(errors.at("mlp"), .1);
}

TEST(QuantizedExchangeTest, TypesThatDoNotFitAreRefused) {
  ExchangeRun run{.model = kModel, .options = Options(MaxminCodec{}), .ranks = 2};
  run.options.communication.types = {{"critic", "discriminator.*", std::nullopt}};
  for (const absl::Status& status : RunExchange(run).statuses) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("critic")));
  }
  run.options.communication.types = {{"a", "layers.*", std::nullopt}, {"b", "*.qkv.weight", std::nullopt}};
  for (const absl::Status& status : RunExchange(run).statuses) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("layers.0.qkv.weight")));
  }
}

TEST(QuantizedExchangeTest, RanksWithOtherSettingsAreRefusedWithTheirNumber) {
  auto communicators = MakeLocalCommunicators(3, {.timeout = absl::Seconds(20)});
  RunThreads(3, [&](int rank) {
    TestGradients gradients(kModel);
    ExchangeOptions options = Options(MaxminCodec{rank == 2 ? 5 : 4, 512});
    EXPECT_THAT(GradientExchange::Create(options, gradients.layers, communicators[static_cast<size_t>(rank)].get()),
                StatusIs(absl::StatusCode::kFailedPrecondition, ::testing::HasSubstr("rank 2 has other settings")));
  });
}

// A rank whose copy of the gradients is damaged is found at the next check, by all.
TEST(QuantizedExchangeTest, TheHashCheckFindsARankThatDiffers) {
  // A codec that decodes to something else on rank 1 from step 2 on.
  class Faulty final : public Codec {
   public:
    explicit Faulty(const std::atomic<bool>* damages) : damages_(damages) {}
    absl::string_view name() const override { return "faulty"; }
    int64_t MaxBytes(int64_t elements) const override { return 4 * elements; }
    int64_t Encode(const CodecSlice& slice, const CodecKey& key, const float* values, char* out,
                   kernels::Stream&) override {
      is_one_ = key.rank == 1;
      std::memcpy(out, values, static_cast<size_t>(4 * slice.elements));
      return 4 * slice.elements;
    }
    int64_t Decode(const CodecSlice& slice, const char* in, float* values, kernels::Stream&) override {
      std::memcpy(values, in, static_cast<size_t>(4 * slice.elements));
      if (*damages_ && is_one_) values[0] = std::nextafter(values[0], 1e9f);
      return 4 * slice.elements;
    }

   private:
    const std::atomic<bool>* const damages_;
    bool is_one_ = false;
  };
  std::atomic<bool> damages = false;
  ExchangeRun run{.model = kModel, .options = Options(MaxminCodec{}), .ranks = 3, .steps = 4};
  run.options.communication.hash_check_interval_steps = 2;
  run.options.make_codec = [&](const CodecSetting&) { return std::make_unique<Faulty>(&damages); };
  run.after = [&](int rank, int64_t step, GradientExchange&, std::vector<float>&) {
    EXPECT_LT(step, 3);
    if (step == 1 && rank == 1) damages = true;
  };
  for (const absl::Status& status : RunExchange(run).statuses) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, ::testing::HasSubstr("step 3 rank 1 holds other")));
  }
}

}  // namespace
}  // namespace trainyard::comm
