#include "worker/prune/model_pruner.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/prune/radix_select.h"
#include "worker/model/testing/test_network.h"

namespace trainyard::prune {
namespace {

using model::testing::TestNetwork;
using ::testing::HasSubstr;

model::ModelConfig Config() {
  model::ModelConfig config;
  config.vocab_size = 61;
  config.hidden_size = 24;
  config.intermediate_size = 40;
  config.layers = 2;
  config.q_heads = 3;
  config.kv_heads = 1;
  config.head_dim = 8;
  return config;
}

absl::Status FillTokens(const kernels::TensorView& tokens, const kernels::TensorView& targets) {
  const auto draws = kernels::testing::RandomTokens(tokens.size(), 61, 5);
  std::memcpy(tokens.data(), draws.as<int32_t>(), static_cast<size_t>(tokens.bytes()));
  std::memcpy(targets.data(), draws.as<int32_t>(), static_cast<size_t>(tokens.bytes()));
  return absl::OkStatus();
}

Calibration SixSequences() {
  return {.sequences = 6, .sequence_length = 16, .load = FillTokens};
}

TEST(ModelPrunerTest, EveryMatrixOfTheBlocksIsExact) {
  for (const Method method : {Method::kMagnitude, Method::kWanda, Method::kSparseGpt}) {
    TestNetwork network(Config(), {});
    const std::vector<std::vector<double>> before = network.WeightValues();
    ASSERT_OK_AND_ASSIGN(
        const std::vector<PrunedMatrix> pruned,
        PruneModel(Config(), network.weights, {.method = method, .sparsity = 0.5}, SixSequences(), network.stream));
    EXPECT_EQ(pruned.size(), 2u * 7);
    std::map<std::string, const PrunedMatrix*> by_name;
    for (const PrunedMatrix& matrix : pruned) by_name[matrix.name] = &matrix;
    const std::vector<std::vector<double>> after = network.WeightValues();
    for (size_t i = 0; i < network.parameters.size(); ++i) {
      const model::Parameter& parameter = network.parameters[i];
      if (parameter.layer == 0 || parameter.layer == 3 || !parameter.is_matrix()) {
        EXPECT_EQ(after[i], before[i]) << parameter.name;
        continue;
      }
      for (const model::HuggingFacePart& part : parameter.parts) {
        ASSERT_TRUE(by_name.contains(part.name)) << part.name;
        const PrunedMatrix& matrix = *by_name[part.name];
        const int64_t cols = parameter.shape[1];
        EXPECT_EQ(std::count(matrix.kept.begin(), matrix.kept.end(), 0), part.rows * cols / 2) << part.name;
        for (int64_t j = 0; j < part.rows * cols; ++j) {
          const double value = after[i][static_cast<size_t>(part.row_begin * cols + j)];
          ASSERT_EQ(matrix.kept[static_cast<size_t>(j)] != 0, value != 0) << part.name;
        }
      }
    }
  }
}

// Keeps the inputs of every layer.
class RecordingScheme final : public linear::LinearScheme {
 public:
  absl::string_view name() const override { return "recording"; }
  int64_t WorkspaceBytes(const linear::LinearSite& site) const override { return inner_->WorkspaceBytes(site); }
  void Forward(const linear::LinearCall& call, const kernels::LinearForwardArgs& args,
               kernels::Stream& stream) const override {
    const float* const x = args.x.as<float>();
    (*inputs)[call.site.name] = std::vector<float>(x, x + args.x.size());
    inner_->Forward(call, args, stream);
  }
  void Backward(const linear::LinearCall&, const linear::LinearBackwardArgs&, kernels::Stream&) const override {}

  std::map<std::string, std::vector<float>>* inputs = nullptr;

 private:
  const std::unique_ptr<linear::LinearScheme> inner_ = linear::MakeFp32Scheme();
};

// What the finished model's layers see is what they were pruned by: with inputs of the unpruned model, masks of all but
// the first layer come out otherwise.
TEST(ModelPrunerTest, LayersArePrunedByThePrunedModelsActivations) {
  TestNetwork original(Config(), {}), pruned(Config(), {});
  const OneShotOptions options{.method = Method::kWanda, .sparsity = 0.6};
  ASSERT_OK_AND_ASSIGN(const std::vector<PrunedMatrix> matrices,
                       PruneModel(Config(), pruned.weights, options, SixSequences(), pruned.stream));

  std::map<std::string, std::vector<float>> inputs;
  RecordingScheme scheme;
  scheme.inputs = &inputs;
  const model::NetworkOptions network_options{.batch = 6, .seq = 16};
  kernels::Arena counting = kernels::Arena::CountOnly();
  model::Network(Config(), network_options, &scheme, &pruned.weights, nullptr, counting);
  kernels::Arena arena = *kernels::Arena::Reserve(counting.used_bytes());
  model::Network network(Config(), network_options, &scheme, &pruned.weights, nullptr, arena);
  network.Prepare(pruned.stream);
  ASSERT_OK(FillTokens(network.tokens(), network.targets()));
  network.Forward(pruned.stream);

  size_t next = 0;
  for (size_t i = 0; i < original.parameters.size(); ++i) {
    const model::Parameter& parameter = original.parameters[i];
    if (parameter.layer == 0 || parameter.layer == 3 || !parameter.is_matrix()) continue;
    std::vector<float>& x = inputs.at(parameter.name.substr(0, parameter.name.size() - 7));
    InputMoments moments(parameter.shape[1], false);
    moments.Add({x.data(), kernels::DType::kF32, {6 * 16, parameter.shape[1]}}, original.stream);
    for (const model::HuggingFacePart& part : parameter.parts) {
      std::vector<uint8_t> kept;
      ASSERT_OK(PruneMatrix(options, moments, original.weights.all[i].Slice(part.row_begin, part.rows), &kept,
                            original.stream));
      ASSERT_LT(next, matrices.size());
      EXPECT_EQ(matrices[next].name, part.name);
      EXPECT_EQ(matrices[next++].kept, kept) << part.name;
    }
  }
}

TEST(ModelPrunerTest, RefusesWhatCannotBe) {
  TestNetwork network(Config(), {});
  const Calibration none{.load = FillTokens};
  EXPECT_THAT(PruneModel(Config(), network.weights, {.method = Method::kWanda}, none, network.stream),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("needs calibration data")));
  model::ModelConfig odd = Config();
  odd.intermediate_size = 42;
  TestNetwork other(odd, {});
  EXPECT_THAT(PruneModel(odd, other.weights, {.method = Method::kMagnitude, .group = 4}, none, other.stream),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("down_proj.weight: rows of 42")));
}

}  // namespace
}  // namespace trainyard::prune
