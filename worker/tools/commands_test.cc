#include "worker/tools/commands.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/data/loader.h"
#include "worker/model/hugging_face.h"
#include "worker/model/safetensors.h"
#include "worker/model/testing/test_network.h"
#include "worker/tools/tool.h"
#include "worker/train/testing/tiny_dataset.h"

namespace trainyard::tools {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  int exit_code = 0;
  std::string out, err;
};

Outcome Call(const std::vector<std::string>& arguments) {
  Outcome outcome;
  CLI::App app;
  AddPlanCommand(app, &outcome.exit_code);
  AddGenerateCommand(app, &outcome.exit_code);
  AddEvalCommand(app, &outcome.exit_code);
  AddPruneCommand(app, &outcome.exit_code);
  AddRunCommand(app, &outcome.exit_code);
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.err = ::testing::internal::GetCapturedStderr();
  return outcome;
}

constexpr char kJob[] = R"(
name: planned
world: {min: 2}
pretrain: {}
model:
  shape: {vocab_size: 257, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4}
data: {path: data, sequence_length: 16}
training: {steps: 10, micro_batch: 2}
)";

TEST(PlanCommandTest, PrintsTheSamePlanForPeopleAndPrograms) {
  TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir.Join("job.yaml"), kJob));
  const Outcome json = Call({"plan", dir.Join("job.yaml"), "-o", "json"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const nlohmann::json plan = nlohmann::json::parse(json.out);
  EXPECT_EQ(plan["ranks"], 2);
  EXPECT_EQ(plan["parameters"], 2 * 257 * 32 + 32 + 2 * (2 * 32 + 4 * 32 * 32 + 3 * 32 * 64));
  EXPECT_EQ(plan["tokens_per_step"], 2 * 2 * 16);
  int64_t sum = 0;
  for (const auto& [purpose, bytes] : plan["memory_by_purpose"].items()) sum += bytes.get<int64_t>();
  EXPECT_EQ(plan["memory_bytes_per_rank"], sum);

  const Outcome text = Call({"plan", "-f", dir.Join("job.yaml"), "--set", "world.min=1"});
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("planned: 1 rank"));
  EXPECT_FALSE(absl::StrContains(text.out, "on the wire"));
}

TEST(PlanCommandTest, OfAGpuJobTellsWhatLivesWhere) {
  TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir.Join("job.yaml"), kJob));
  const std::vector<std::string> common = {"plan",  dir.Join("job.yaml"),       "--set", "world.slot_type=gpu",
                                           "--set", "training.recompute=block", "--set", "model.dtype=bf16"};
  const auto plan_with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), common.begin(), common.end());
    return Call(more);
  };
  const Outcome plain = plan_with({"-o", "json"});
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  const Outcome offloaded = plan_with({"-o", "json", "--set", "training.offload=[moments, master, residuals]"});
  ASSERT_EQ(offloaded.exit_code, 0) << offloaded.err;
  const nlohmann::json before = nlohmann::json::parse(plain.out), after = nlohmann::json::parse(offloaded.out);
  for (const nlohmann::json& plan : {before, after}) {
    int64_t host = 0;
    for (const auto& [purpose, bytes] : plan["host_memory_by_purpose"].items()) host += bytes.get<int64_t>();
    EXPECT_EQ(plan["host_memory_bytes_per_rank"], host);
    EXPECT_EQ(plan["device_memory_bytes_per_rank"].get<int64_t>() + host, plan["memory_bytes_per_rank"]);
  }
  EXPECT_FALSE(before["host_memory_by_purpose"].contains("moments"));
  EXPECT_EQ(after["host_memory_by_purpose"]["moments"], before["memory_by_purpose"]["moments"]);
  EXPECT_EQ(after["host_memory_by_purpose"]["master"], before["memory_by_purpose"]["master"]);

  const Outcome text = plan_with({"--set", "training.offload=[moments]"});
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("memory of one rank       device         host\n"));
  const Outcome refused = Call({"plan", dir.Join("job.yaml"), "--set", "training.offload=[moments]"});
  EXPECT_NE(refused.exit_code, 0);
  EXPECT_THAT(refused.err, HasSubstr("training.offload: needs world.slot_type gpu"));
}

constexpr char kGan[] = R"(
name: gan
world: {min: 2}
qoda_gan:
  networks: {dcgan32: {filters: 64}}
  data: {idx: {images: nowhere}}
  optimizer: {extra_adam: {}}
  global_batch: 8
  evaluation_samples: 64
communication: {codec: {maxmin: {bits: 4}}}
)";

// Parameters of methods/qoda.md, 5.7, of one channel: two kernels of 4x4x64 less at either end; no file is opened.
TEST(PlanCommandTest, PlansGans) {
  TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir.Join("gan.yaml"), kGan));
  const Outcome json = Call({"plan", dir.Join("gan.yaml"), "-o", "json"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const nlohmann::json plan = nlohmann::json::parse(json.out);
  EXPECT_EQ(plan["generator_parameters"], 1195587 - 2 * (64 * 16 + 1));
  EXPECT_EQ(plan["discriminator_parameters"], 662977 - 2 * 64 * 16);
  EXPECT_EQ(plan["exchanges_per_step"], 2);
  EXPECT_EQ(plan["samples_per_step"], 16);
  int64_t sum = 0;
  for (const auto& [purpose, bytes] : plan["memory_by_purpose"].items()) sum += bytes.get<int64_t>();
  EXPECT_EQ(plan["memory_bytes_per_rank"], sum);
  const int64_t uncoded = plan["uncoded_bytes_per_step_per_rank"], sent = plan["wire_bytes_per_step_per_rank"];
  EXPECT_NEAR(static_cast<double>(uncoded), 2 * 4 * (1193537.0 + 660929.0), 1000);
  // 2 * 32 / (4.125 + 8.125) of the coded tensors (quantized-comm.md, 2.4); biases and norms are not.
  const double ratio = static_cast<double>(uncoded) / static_cast<double>(sent);
  EXPECT_LT(ratio, 5.225);
  EXPECT_GT(ratio, 5.0);

  const Outcome text = Call({"plan", dir.Join("gan.yaml")});
  EXPECT_THAT(text.out, HasSubstr("in the discriminator"));
  EXPECT_THAT(text.out, HasSubstr("on the wire"));
}

TEST(PlanCommandTest, ExitCodesTellWhatIsWrong) {
  TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir.Join("job.yaml"), std::string(kJob) + "labels: {a: b}\nqueu: c\n"));
  const Outcome misspelt = Call({"plan", dir.Join("job.yaml")});
  EXPECT_EQ(misspelt.exit_code, 2);
  EXPECT_THAT(misspelt.err, HasSubstr("did you mean queue"));
  EXPECT_EQ(Call({"plan", dir.Join("none.yaml")}).exit_code, 3);
}

// A model with a byte tokenizer and a data set beside it.
class ModelCommandTest : public ::testing::Test {
 protected:
  ModelCommandTest() : network_(Config(), {.batch = 2, .seq = 32}) {
    TY_CHECK_OK(ExportModel(network_.config, network_.weights.all,
                            {.directory = model_.path(), .tokenizer_source = data_.path()}));
  }
  static model::ModelConfig Config() {
    model::ModelConfig config;
    config.vocab_size = 257;
    config.hidden_size = 32;
    config.intermediate_size = 48;
    config.layers = 2;
    config.q_heads = config.kv_heads = 4;
    config.head_dim = 8;
    config.max_positions = 128;
    return config;
  }

  train::testing::TinyDataset data_;
  TempDir model_;
  model::testing::TestNetwork network_;
};

TEST_F(ModelCommandTest, GenerateIsAFunctionOfItsFlags) {
  const auto generate = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"generate", "--model",      model_.path(), "--prompt",
                                          "The yard", "--max_tokens", "20"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Call(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  };
  const std::string greedy = generate({});
  EXPECT_THAT(greedy, ::testing::StartsWith("The yard"));
  EXPECT_EQ(generate({"--threads", "2"}), greedy);
  const std::string sampled = generate({"--temperature", "1", "--seed", "3"});
  EXPECT_EQ(generate({"--temperature", "1", "--seed", "3"}), sampled);
  EXPECT_NE(generate({"--temperature", "1", "--seed", "4"}), sampled);
  EXPECT_EQ(Call({"generate", "--model", model_.path(), "--top_p", "2", "--prompt", "a"}).exit_code, 2);
  EXPECT_EQ(Call({"generate", "--model", data_.path(), "--prompt", "a"}).exit_code, 3);
}

TEST_F(ModelCommandTest, EvalIsTheMeanLossOverTheValidationWindows) {
  const Outcome outcome = Call({"eval", "--model", model_.path(), "--data", data_.path(), "--sequence_length", "32",
                                "--windows", "3", "--batch", "2", "-o", "json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json found = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(found["windows"], 3);
  EXPECT_EQ(found["tokens"], 96);

  data::LoaderOptions loading;
  loading.directory = data_.path();
  loading.sequence_length = 32;
  loading.vocab_size = 257;
  ASSERT_OK_AND_ASSIGN(const data::Loader loader, data::Loader::Open(loading));
  double sum = 0;
  for (const int64_t first : {0, 2}) {
    ASSERT_OK(loader.Validation(first, network_.network->tokens(), network_.network->targets()));
    network_.network->Forward(network_.stream);
    const std::vector<double> losses = model::testing::ToDoubles(network_.network->losses());
    for (size_t i = 0; i < (first == 0 ? 64u : 32u); ++i) sum += losses[i];
  }
  EXPECT_NEAR(found["loss"].get<double>(), sum / 96, 1e-6);
  EXPECT_NEAR(found["perplexity"].get<double>(), std::exp(sum / 96), 1e-3);
  EXPECT_EQ(Call({"eval", "--model", model_.path(), "--data", data_.path(), "--sequence_length", "129"}).exit_code, 2);
}

TEST_F(ModelCommandTest, PruneWritesAModelAndItsMasks) {
  for (const std::string method : {"magnitude", "wanda", "sparsegpt"}) {
    TempDir out;
    const Outcome outcome =
        Call({"prune", model_.path(), "--method", method, "--pattern", "2:4", "--data", data_.path(), "--samples", "8",
              "--sequence_length", "32", "--out", out.path(), "-o", "json"});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const nlohmann::json found = nlohmann::json::parse(outcome.out);
    EXPECT_EQ(found["matrices"], 14);
    EXPECT_EQ(found["elements"], 2 * found["pruned"].get<int64_t>());
    ASSERT_OK_AND_ASSIGN(const model::SafetensorsReader weights,
                         model::SafetensorsReader::Open(out.Join("model.safetensors")));
    ASSERT_OK_AND_ASSIGN(const model::SafetensorsReader masks,
                         model::SafetensorsReader::Open(out.Join("masks.safetensors")));
    EXPECT_EQ(masks.metadata().at("method"), method);
    EXPECT_EQ(masks.entries().size(), 14u);
    for (const auto& [name, entry] : masks.entries()) {
      ASSERT_OK_AND_ASSIGN(const kernels::TensorView bits, masks.Tensor(name));
      ASSERT_OK_AND_ASSIGN(const kernels::TensorView weight, weights.Tensor(name));
      for (int64_t i = 0; i < weight.size(); ++i) {
        ASSERT_EQ((bits.as<uint8_t>()[i / 8] >> (i % 8)) & 1, weight.as<float>()[i] != 0) << name;
      }
    }
    EXPECT_EQ(Call({"eval", "--model", out.path(), "--data", data_.path(), "--sequence_length", "32"}).exit_code, 0);
  }
  const auto fails = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"prune", model_.path(), "--out", model_.Join("out")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Call(arguments);
    EXPECT_EQ(outcome.exit_code, 2);
    return outcome.err;
  };
  EXPECT_THAT(fails({"--method", "obd"}), HasSubstr("'obd' is not magnitude, wanda or sparsegpt"));
  EXPECT_THAT(fails({"--sparsity", "1"}), HasSubstr("1 not in [0, 1)"));
  EXPECT_THAT(fails({"--pattern", "1:4"}), HasSubstr("'1:4' is not 2:4 or 4:8"));
  EXPECT_THAT(fails({"--method", "wanda"}), HasSubstr("--data: wanda needs a data set"));
  EXPECT_THAT(fails({"--data", data_.path(), "--sequence_length", "129"}), HasSubstr("129 not in [1, 128]"));
}

TEST(NumbersTest, AreShort) {
  EXPECT_EQ(BytesText(1023), "1023 B");
  EXPECT_EQ(BytesText(1536), "1.50 KiB");
  EXPECT_EQ(BytesText(int64_t{3} << 30), "3.00 GiB");
  EXPECT_EQ(CountText(999), "999");
  EXPECT_EQ(CountText(25.4e6), "25.40 M");
  EXPECT_EQ(CountText(1.5e21), "1500.00 E");
}

}  // namespace
}  // namespace trainyard::tools
