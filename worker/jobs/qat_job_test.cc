#include "worker/jobs/qat_job.h"

#include <filesystem>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/data/loader.h"
#include "worker/jobs/testing/job_rank.h"
#include "worker/jobs/testing/tiny_job.h"
#include "worker/model/hugging_face.h"
#include "worker/model/network.h"
#include "worker/model/packed_model.h"
#include "worker/train/testing/tiny_dataset.h"

namespace trainyard::jobs {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

spec::JobOptions TinyJob(const std::string& data) {
  spec::JobOptions options = TinyLanguageModelJob(data);
  options.training.steps = 16;
  options.training.optimizer = spec::AdamWOptions{.learning_rate = 5e-3};
  options.training.linear.scheme = spec::LinearQuest{.hadamard_dim = 32};
  options.kind = spec::QatOptions{{.prompts = {"The yard"}, .tokens = 12}};
  return options;
}

v1::JobResult RunJob(const spec::JobOptions& options, const std::string& attempt_dir) {
  JobRank rank(options, attempt_dir);
  TY_CHECK_OK(rank.job->Prepare(rank.context));
  TY_CHECK_OK(rank.job->Initialize());
  rank.Units(static_cast<int>(options.training.steps));
  absl::StatusOr<v1::JobResult> result = rank.job->Finish();
  TY_CHECK_OK(result);
  return *std::move(result);
}

// The mean loss of the job's evaluation windows through the packed folder alone.
double PackedLoss(const std::string& directory, const spec::JobOptions& options,
                  kernels::DType dtype = kernels::DType::kF32) {
  kernels::Stream stream(1);
  absl::StatusOr<model::PackedModel> packed = model::LoadPackedModel(directory, dtype, stream);
  TY_CHECK_OK(packed);
  data::LoaderOptions loading;
  loading.directory = options.data.path;
  loading.sequence_length = options.data.sequence_length;
  loading.vocab_size = 257;
  absl::StatusOr<data::Loader> loader = data::Loader::Open(loading);
  TY_CHECK_OK(loader);
  const int64_t rows = options.training.micro_batch;
  const model::NetworkOptions shape{.batch = rows, .seq = options.data.sequence_length, .dtype = dtype};
  kernels::Arena counting = kernels::Arena::CountOnly();
  model::Network(packed->config, shape, packed->scheme.get(), &packed->weights, nullptr, counting);
  kernels::Arena arena = *kernels::Arena::Reserve(counting.used_bytes());
  model::Network network(packed->config, shape, packed->scheme.get(), &packed->weights, nullptr, arena);
  network.Prepare(stream);
  double sum = 0;
  double tokens = 0;
  for (int64_t batch = 0; batch < options.training.evaluation.batches; ++batch) {
    absl::StatusOr<int64_t> real = loader->Validation(batch * rows, network.tokens(), network.targets());
    TY_CHECK_OK(real);
    network.Forward(stream);
    for (int64_t i = 0; i < network.losses().size(); ++i) sum += network.losses().as<float>()[i];
    tokens += static_cast<double>(*real * options.data.sequence_length);
  }
  return sum / tokens;
}

TEST(QatJobTest, ExportsTheFloatModelAndItsCodes) {
  train::testing::TinyDataset data;
  TempDir attempt;
  const spec::JobOptions options = TinyJob(data.path());
  const v1::JobResult result = RunJob(options, attempt.path());
  ASSERT_EQ(result.artifacts_size(), 2);
  EXPECT_EQ(result.artifacts(0).name(), "model");
  EXPECT_EQ(result.artifacts(1).name(), "packed");
  EXPECT_EQ(result.artifacts(1).path(), attempt.Join("packed"));
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(attempt.Join("packed"))) {
    bytes += static_cast<int64_t>(entry.file_size());
  }
  EXPECT_EQ(result.artifacts(1).bytes(), bytes);
  EXPECT_TRUE(FileExists(attempt.Join("packed/tokenizer.json")));
  ASSERT_EQ(result.samples_size(), 1);
  EXPECT_THAT(result.samples(0), StartsWith("The yard"));

  // The quantizers are active in the reported evaluation, and the codes alone give the same.
  const double reported = result.values().at("evaluation_loss");
  EXPECT_NEAR(PackedLoss(attempt.Join("packed"), options), reported, 1e-4);
  spec::JobOptions dense = options;
  dense.training.linear.scheme = spec::LinearFp32{};
  TempDir other;
  EXPECT_GT(std::abs(RunJob(dense, other.path()).values().at("evaluation_loss") - reported), 1e-3);
}

// The rival's learned steps, and a layer that stays float beside them.
TEST(QatJobTest, ExportsLearnedStepsWithTheCodes) {
  train::testing::TinyDataset data;
  for (const spec::FloatType dtype : {spec::FloatType::kFp32, spec::FloatType::kBf16}) {
    TempDir attempt;
    spec::JobOptions options = TinyJob(data.path());
    options.model.dtype = dtype;
    options.training.linear.exclude = {"layers.0.output"};
    options.training.linear.scheme = spec::LinearQuest{.hadamard_dim = 0,
                                                       .projection = spec::LinearQuest::Projection::kLsq,
                                                       .gradient_mask = spec::LinearQuest::GradientMask::kClip};
    const v1::JobResult result = RunJob(options, attempt.path());
    ASSERT_EQ(result.artifacts_size(), 2);
    EXPECT_EQ(result.artifacts(1).name(), "packed");
    const auto storage = dtype == spec::FloatType::kFp32 ? kernels::DType::kF32 : kernels::DType::kBF16;
    EXPECT_NEAR(PackedLoss(attempt.Join("packed"), options, storage), result.values().at("evaluation_loss"),
                dtype == spec::FloatType::kFp32 ? 1e-4 : 1e-2);
  }
}

// With an evaluation, and only then: outside of its steps nothing is counted.
TEST(QatJobTest, EvaluationsTellWhatTheMasksStop) {
  train::testing::TinyDataset data;
  TempDir attempt;
  spec::JobOptions options = TinyJob(data.path());
  options.training.evaluation.interval_steps = 2;
  options.training.linear.exclude = {"*.gate_up", "*.down"};
  JobRank rank(options, attempt.path());
  ASSERT_OK(rank.job->Prepare(rank.context));
  ASSERT_OK(rank.job->Initialize());
  const std::vector<UnitResult> units = rank.Units(3);
  for (const char* name : {"masked_fraction_attention_inputs", "masked_fraction_attention_weights"}) {
    ASSERT_EQ(units[1].metrics.count(name), 1u) << name;
    EXPECT_GT(units[1].metrics.at(name), 1e-3);
    EXPECT_LT(units[1].metrics.at(name), 0.05);  // of normal numbers 0.0073
    EXPECT_EQ(units[0].metrics.count(name) + units[2].metrics.count(name), 0u);
  }
  EXPECT_EQ(units[1].metrics.count("masked_fraction_mlp_inputs"), 0u) << "these layers are dense";
}

TEST(QatJobTest, StartsFromAModelFolder) {
  train::testing::TinyDataset data;
  TempDir first, second;
  spec::JobOptions options = TinyJob(data.path());
  RunJob(options, first.path());
  options.model.source = spec::PathModel{first.Join("model"), false};
  JobRank rank(options, second.path());
  ASSERT_OK(rank.job->Prepare(rank.context));
  ASSERT_OK(rank.job->Initialize());
  EXPECT_LT(rank.Units(1)[0].metrics.at("loss"), 5.3) << "ln 257 = 5.55 is where initial weights begin";

  options.model.source = spec::PathModel{first.Join("packed"), false};
  JobRank codes(options, second.path());
  ASSERT_OK(codes.job->Prepare(codes.context));
  EXPECT_THAT(codes.job->Initialize(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("quantization_config")));
}

TEST(QatJobTest, WithoutWeightCodesThereIsNoPackedModel) {
  train::testing::TinyDataset data;
  TempDir attempt;
  spec::JobOptions options = TinyJob(data.path());
  options.training.steps = 1;
  options.training.linear.scheme = spec::LinearQuest{.weight_grid = spec::LinearQuest::Grid::kNone, .hadamard_dim = 32};
  EXPECT_EQ(RunJob(options, attempt.path()).artifacts_size(), 1);
  EXPECT_FALSE(FileExists(attempt.Join("packed")));
}

// A layer that the rotation does not fit is refused before anything is trained.
TEST(QatJobTest, NamesTheLayerThatDoesNotFit) {
  train::testing::TinyDataset data;
  TempDir attempt;
  spec::JobOptions options = TinyJob(data.path());
  options.training.linear.scheme = spec::LinearQuest{.hadamard_dim = 64};
  JobRank rank(options, attempt.path());
  EXPECT_THAT(rank.job->Prepare(rank.context), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("layers.0.qkv")));
}

}  // namespace
}  // namespace trainyard::jobs
