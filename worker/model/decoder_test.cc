#include "worker/model/decoder.h"

#include <cmath>
#include <map>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/model/generate.h"
#include "worker/model/testing/reference_network.h"
#include "worker/model/testing/test_network.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::testing::HostTensor;
using testing::TestNetwork;
using testing::ToDoubles;

struct TestDecoder {
  TestDecoder(TestNetwork& test, DType dtype, int64_t positions) {
    const DecoderOptions options{.max_positions = positions, .dtype = dtype};
    kernels::Arena counting = kernels::Arena::CountOnly();
    Decoder(test.config, options, test.scheme.get(), &test.weights, counting);
    arena = std::make_unique<kernels::Arena>(*kernels::Arena::Reserve(counting.used_bytes()));
    decoder = std::make_unique<Decoder>(test.config, options, test.scheme.get(), &test.weights, *arena);
    decoder->Prepare(test.stream);
  }
  std::unique_ptr<kernels::Arena> arena;
  std::unique_ptr<Decoder> decoder;
};

class DecoderTest : public ::testing::TestWithParam<DType> {};

TEST_P(DecoderTest, LogitsWithCacheEqualTheFullForward) {
  const DType dtype = GetParam();
  for (const ModelConfig& config : {testing::TinyLlama(), testing::TinyQwen2(), testing::TinyLlama3(),
                                    testing::TinyPruned(), testing::TinyPrunedEnds()}) {
    TestNetwork test(config, {.batch = 1, .seq = 20, .dtype = dtype});
    const HostTensor full(dtype, {20, config.vocab_size});
    test.network->ForwardLogits(full, test.stream);
    const std::vector<double> expected = full.ToDoubles();
    const std::vector<int32_t> tokens = test.Tokens();
    const double tolerance = dtype == DType::kF32 ? 2e-5 : 0.15;

    TestDecoder fixture(test, dtype, 20);
    for (const size_t prompt : {size_t{1}, size_t{7}, size_t{20}}) {
      fixture.decoder->Reset();
      for (size_t next = prompt; next <= 20; ++next) {
        const absl::Span<const int32_t> fed =
            next == prompt ? absl::MakeConstSpan(tokens).first(prompt) : absl::MakeConstSpan(&tokens[next - 1], 1);
        const std::vector<double> logits = ToDoubles(fixture.decoder->Feed(fed, test.stream));
        for (size_t j = 0; j < logits.size(); ++j) {
          ASSERT_NEAR(logits[j], expected[(next - 1) * logits.size() + j], tolerance) << prompt << " " << next;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Storage, DecoderTest, ::testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return std::string(kernels::Name(info.param)); });

TEST(GenerateTest, GreedyPicksWhatTheFullForwardFindsLikeliest) {
  TestNetwork test(testing::TinyLlama(), {.batch = 1, .seq = 16});
  TestDecoder fixture(test, DType::kF32, 16);
  const std::vector<int32_t> prompt = {3, 1, 4};
  std::vector<int32_t> seen;
  ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> generated, Generate(
                                                                 *fixture.decoder, test.config, prompt, 10, {},
                                                                 [&](int32_t token) {
                                                                   seen.push_back(token);
                                                                   return true;
                                                                 },
                                                                 test.stream));
  EXPECT_EQ(generated, seen);
  ASSERT_EQ(generated.size(), 10u);
  std::vector<int32_t> sequence = prompt;
  for (const int32_t token : generated) {
    const std::vector<double> logits = testing::ReferenceLogits(test.config, test.WeightValues(), sequence, 1);
    const auto last = logits.end() - test.config.vocab_size;
    EXPECT_EQ(std::max_element(last, logits.end()) - last, token);
    sequence.push_back(token);
  }
}

TEST(GenerateTest, EndsAtEndOfTextAtTheLastPositionAndWhenTold) {
  TestNetwork test(testing::TinyLlama(), {.batch = 1, .seq = 16});
  TestDecoder fixture(test, DType::kF32, 8);
  const auto go_on = [](int32_t) { return true; };
  const std::vector<int32_t> prompt = {3, 1, 4};
  ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> free,
                       Generate(*fixture.decoder, test.config, prompt, 100, {}, go_on, test.stream));
  EXPECT_EQ(free.size(), 6u);  // 3 + 5 fill the cache; one more comes from the last logits
  ModelConfig ends = test.config;
  ends.eos_ids = {free[2]};
  size_t first = 0;
  while (free[first] != free[2]) ++first;
  ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> ended,
                       Generate(*fixture.decoder, ends, prompt, 100, {}, go_on, test.stream));
  EXPECT_EQ(ended.size(), first);
  ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> told,
                       Generate(
                           *fixture.decoder, test.config, prompt, 100, {}, [](int32_t) { return false; }, test.stream));
  EXPECT_EQ(told.size(), 1u);
}

TEST(GenerateTest, RefusesWhatItCannotFeed) {
  TestNetwork test(testing::TinyLlama(), {.batch = 1, .seq = 4});
  TestDecoder fixture(test, DType::kF32, 4);
  const auto try_prompt = [&](std::vector<int32_t> prompt, SamplingOptions sampling) {
    return Generate(
        *fixture.decoder, test.config, prompt, 1, sampling, [](int32_t) { return true; }, test.stream);
  };
  using absl::StatusCode;
  using ::testing::HasSubstr;
  EXPECT_THAT(try_prompt({}, {}), StatusIs(StatusCode::kInvalidArgument, HasSubstr("no tokens")));
  EXPECT_THAT(try_prompt({1, 2, 3, 4, 5}, {}), StatusIs(StatusCode::kInvalidArgument, HasSubstr("room for 4")));
  EXPECT_THAT(try_prompt({37}, {}), StatusIs(StatusCode::kInvalidArgument, HasSubstr("[0, 37)")));
  EXPECT_THAT(try_prompt({1}, {.temperature = -1}), StatusIs(StatusCode::kInvalidArgument, HasSubstr("temperature")));
  EXPECT_THAT(try_prompt({1}, {.top_p = 0}), StatusIs(StatusCode::kInvalidArgument, HasSubstr("top_p")));
}

TEST(SamplerTest, FrequenciesFollowTemperatureAndTopP) {
  const auto logits = HostTensor::Of(DType::kF32, {1, 4}, {std::log(0.5), std::log(0.1), std::log(0.3), std::log(0.1)});
  const auto counts = [&](SamplingOptions options) {
    options.seed = 5;
    Sampler sampler(options, 4);
    std::map<int32_t, double> frequency;
    for (int64_t position = 0; position < 20000; ++position) frequency[sampler.Pick(logits, position)] += 1.0 / 20000;
    return frequency;
  };
  constexpr double kFourSigma = 4 * 0.5 / 141;
  std::map<int32_t, double> plain = counts({.temperature = 1});
  EXPECT_NEAR(plain[0], 0.5, kFourSigma);
  EXPECT_NEAR(plain[1], 0.1, kFourSigma);
  EXPECT_NEAR(plain[2], 0.3, kFourSigma);
  std::map<int32_t, double> cold = counts({.temperature = 0.5});  // squares: 0.25, 0.01, 0.09, 0.01 of 0.36
  EXPECT_NEAR(cold[0], 0.25 / 0.36, kFourSigma);
  std::map<int32_t, double> nucleus = counts({.temperature = 1, .top_p = 0.75});  // 0.5 + 0.3 reach it
  EXPECT_EQ(nucleus.size(), 2u);
  EXPECT_NEAR(nucleus[0], 0.5 / 0.8, kFourSigma);
  EXPECT_NEAR(nucleus[2], 0.3 / 0.8, kFourSigma);
  EXPECT_EQ(counts({}).size(), 1u);
}

}  // namespace
}  // namespace trainyard::model
