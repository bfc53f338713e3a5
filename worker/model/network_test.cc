#include "worker/model/network.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/model/testing/reference_network.h"
#include "worker/model/testing/test_network.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using testing::TestNetwork;
using testing::ToDoubles;

struct NamedConfig {
  const char* name;
  ModelConfig config;
};

class NetworkTest : public ::testing::TestWithParam<NamedConfig> {};

TEST_P(NetworkTest, LossesAndLogitsMatchDoubleReference) {
  TestNetwork test(GetParam().config, {.batch = 2, .seq = 9});
  const kernels::testing::HostTensor logits(DType::kF32, {18, test.config.vocab_size});
  test.network->ForwardLogits(logits, test.stream);
  const std::vector<double> expected =
      testing::ReferenceLogits(test.config, test.WeightValues(), test.Tokens(), /*batch=*/2);
  EXPECT_THAT(logits.ToDoubles(), ::testing::Pointwise(::testing::DoubleNear(2e-5), expected));

  test.network->Forward(test.stream);
  const double loss =
      testing::ReferenceLoss(test.config, test.WeightValues(), test.Tokens(), test.Targets(), /*batch=*/2);
  EXPECT_NEAR(test.MeanLoss(), loss, 2e-5);
}

TEST_P(NetworkTest, GradientsMatchDifferencesOfTheReference) {
  TestNetwork test(GetParam().config, {.batch = 2, .seq = 7});
  const std::vector<int32_t> tokens = test.Tokens(), targets = test.Targets();
  test.network->ForwardBackward({.loss_scale = 1.0f / 14}, test.stream);
  std::vector<std::vector<double>> weights = test.WeightValues();
  for (size_t i = 0; i < weights.size(); ++i) {
    const std::vector<double> gradient = ToDoubles(test.gradients.tensors.all[i]);
    // First, last, and some between; of the embedding, the row of a token that occurs.
    const size_t size = weights[i].size();
    std::vector<size_t> elements = {0, size / 3, size / 2 + 1, size - 1};
    if (i == 0) elements.push_back(static_cast<size_t>(tokens[3] * test.config.hidden_size + 5));
    for (const size_t element : elements) {
      constexpr double kStep = 1e-5;
      const double kept = weights[i][element];
      weights[i][element] = kept + kStep;
      const double above = testing::ReferenceLoss(test.config, weights, tokens, targets, 2);
      weights[i][element] = kept - kStep;
      const double below = testing::ReferenceLoss(test.config, weights, tokens, targets, 2);
      weights[i][element] = kept;
      EXPECT_NEAR(gradient[element], (above - below) / (2 * kStep), 2e-6)
          << test.parameters[i].name << "[" << element << "]";
    }
  }
}

TEST_P(NetworkTest, MemoryOptionsAndThreadsChangeNoBit) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const auto run = [&](NetworkOptions options) {
      options.batch = 5;
      options.seq = 130;  // 650 rows: more than two head chunks, the last one short
      options.dtype = dtype;
      TestNetwork test(GetParam().config, options);
      test.network->ForwardBackward({.loss_scale = 0.01f}, test.stream);
      test.network->ForwardBackward({.loss_scale = 0.01f, .accumulate = true}, test.stream);
      std::vector<double> values = ToDoubles(test.gradients.flat);
      const std::vector<double> losses = ToDoubles(test.network->losses());
      values.insert(values.end(), losses.begin(), losses.end());
      return values;
    };
    const std::vector<double> plain = run({});
    EXPECT_EQ(run({.recompute_blocks = true}), plain);
    EXPECT_EQ(run({.head_chunks = 2}), plain);
    EXPECT_EQ(run({.head_chunks = 650}), plain);
    EXPECT_EQ(run({.threads = 3}), plain);
    EXPECT_EQ(run({.recompute_blocks = true, .head_chunks = 3, .threads = 2}), plain);
  }
}

TEST_P(NetworkTest, AccumulationAddsAndOverwritingForgets) {
  TestNetwork test(GetParam().config, {.batch = 1, .seq = 12});
  test.network->ForwardBackward({}, test.stream);
  const std::vector<double> once = ToDoubles(test.gradients.flat);
  test.network->ForwardBackward({.accumulate = true}, test.stream);
  const std::vector<double> twice = ToDoubles(test.gradients.flat);
  for (size_t i = 0; i < once.size(); ++i) ASSERT_NEAR(twice[i], 2 * once[i], 1e-5 * (1 + std::abs(once[i]))) << i;
  test.network->ForwardBackward({}, test.stream);
  EXPECT_EQ(ToDoubles(test.gradients.flat), once);
}

TEST_P(NetworkTest, Bf16StaysNearF32) {
  TestNetwork wide(GetParam().config, {.batch = 2, .seq = 32});
  TestNetwork narrow(GetParam().config, {.batch = 2, .seq = 32, .dtype = DType::kBF16});
  wide.network->ForwardBackward({.loss_scale = 1.0f / 64}, wide.stream);
  narrow.network->ForwardBackward({.loss_scale = 1.0f / 64}, narrow.stream);
  EXPECT_NEAR(narrow.MeanLoss(), wide.MeanLoss(), 0.02);
  // llmq.md, section 5: cosine of gradients to the f32 ones.
  for (size_t i = 0; i < wide.gradients.tensors.all.size(); ++i) {
    const std::vector<double> a = ToDoubles(wide.gradients.tensors.all[i]);
    const std::vector<double> b = ToDoubles(narrow.gradients.tensors.all[i]);
    double aa = 0, ab = 0, bb = 0;
    for (size_t j = 0; j < a.size(); ++j) {
      aa += a[j] * a[j];
      ab += a[j] * b[j];
      bb += b[j] * b[j];
    }
    EXPECT_GT(ab / std::sqrt(aa * bb), 0.99) << wide.parameters[i].name;
  }
}

TEST_P(NetworkTest, LayersBecomeReadyFromLastToFirstWithFinalGradients) {
  TestNetwork test(GetParam().config, {.batch = 1, .seq = 8});
  std::vector<std::pair<int, std::vector<double>>> seen;
  const std::function<void(int)> on_layer_ready = [&](int layer) {
    std::vector<double> values;
    for (size_t i = 0; i < test.parameters.size(); ++i) {
      if (test.parameters[i].layer != layer) continue;
      const std::vector<double> more = ToDoubles(test.gradients.tensors.all[i]);
      values.insert(values.end(), more.begin(), more.end());
    }
    seen.emplace_back(layer, values);
  };
  test.network->ForwardBackward({.on_layer_ready = &on_layer_ready}, test.stream);
  ASSERT_EQ(seen.size(), static_cast<size_t>(test.config.layers) + 2);
  std::vector<double> all;
  for (size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].first, static_cast<int>(test.config.layers) + 1 - static_cast<int>(i));
    all.insert(all.begin(), seen[i].second.begin(), seen[i].second.end());
  }
  EXPECT_EQ(all, ToDoubles(test.gradients.flat));
}

INSTANTIATE_TEST_SUITE_P(All, NetworkTest,
                         ::testing::Values(NamedConfig{"Llama", testing::TinyLlama()},
                                           NamedConfig{"Qwen2", testing::TinyQwen2()},
                                           NamedConfig{"Llama3", testing::TinyLlama3()},
                                           NamedConfig{"Pruned", testing::TinyPruned()},
                                           NamedConfig{"PrunedEnds", testing::TinyPrunedEnds()}),
                         [](const auto& info) { return std::string(info.param.name); });

// llmq.md, section 5: the expected loss of an untrained network is ln V + C 0.02^2 / 2, which a wrong initial
// deviation, final norm, head or loss scaling would miss.
TEST(NetworkInitTest, FirstLossHasItsClosedForm) {
  ModelConfig config = testing::TinyLlama();
  config.vocab_size = 1000;
  config.hidden_size = 512;
  TestNetwork test(config, {.batch = 8, .seq = 64}, /*seed=*/3, /*as_initialized=*/true);
  test.network->Forward(test.stream);
  EXPECT_NEAR(test.MeanLoss(), std::log(1000) + 512 * 0.02 * 0.02 / 2, 0.05);  // 3 sigma of the mean over 512 tokens
}

// As above, for a head whose products are large enough that the library treats them as such, and at the sizes where it
// changes its mind (10^6 multiply-adds).
TEST(NetworkHeadTest, ChunksChangeNoBitAtAnySizeOfTheHead) {
  for (const int64_t vocab : {40, 85, 163, 1000}) {
    ModelConfig config = testing::TinyLlama();
    config.vocab_size = vocab;
    config.layers = 1;
    const auto run = [&](int chunks, int threads) {
      TestNetwork test(config, {.batch = 1, .seq = 1037, .head_chunks = chunks, .threads = threads});
      test.network->ForwardBackward({}, test.stream);
      std::vector<double> values = ToDoubles(test.gradients.flat);
      const std::vector<double> losses = ToDoubles(test.network->losses());
      values.insert(values.end(), losses.begin(), losses.end());
      return values;
    };
    const std::vector<double> whole = run(1, 1);
    EXPECT_EQ(run(2, 1), whole) << vocab;
    EXPECT_EQ(run(3, 2), whole) << vocab;
    EXPECT_EQ(run(5, 1), whole) << vocab;
  }
}

TEST(HeadChunkRowsTest, IsAMultipleOfTheAccumulationBlock) {
  EXPECT_EQ(HeadChunkRows(2048, 1), 2048);
  EXPECT_EQ(HeadChunkRows(2048, 4), 512);
  EXPECT_EQ(HeadChunkRows(2048, 7), 512);
  EXPECT_EQ(HeadChunkRows(2048, 2048), 256);
  EXPECT_EQ(HeadChunkRows(100, 5), 100);
}

}  // namespace
}  // namespace trainyard::model
