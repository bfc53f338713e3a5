// A job whose weights are codes only (ECO), from the spec to the exported model.
#include <cmath>
#include <cstring>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/ckpt/checkpointer.h"
#include "worker/jobs/testing/job_rank.h"
#include "worker/jobs/testing/tiny_job.h"
#include "worker/model/safetensors.h"
#include "worker/tools/loaded_model.h"
#include "worker/train/testing/tiny_dataset.h"

namespace trainyard::jobs {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

spec::JobOptions EcoJob(const std::string& data, spec::FloatType dtype) {
  spec::JobOptions options = TinyLanguageModelJob(data);
  options.training.steps = 8;
  options.model.dtype = dtype;
  if (dtype == spec::FloatType::kBf16) options.training.linear.scheme = spec::LinearBf16{};
  spec::EcoOptions eco;
  eco.learning_rate = 0.02;
  eco.first_moment = spec::MomentType::kBf16;
  options.training.optimizer = eco;
  return options;
}

std::string Weights(const v1::JobResult& result) {
  absl::StatusOr<std::string> text = ReadFile(JoinPath(result.artifacts(0).path(), "model.safetensors"));
  TY_CHECK_OK(text);
  return *text;
}

// A rank that dies between two steps costs nothing but time; the model, its samples and what it tells are those of a
// run that was not disturbed.
TEST(CodedWeightsJobTest, ARestoredRunExportsTheBitsOfAnUndisturbedOne) {
  train::testing::TinyDataset data;
  for (const spec::FloatType dtype : {spec::FloatType::kFp32, spec::FloatType::kBf16}) {
    TempDir root, other;
    JobRank undisturbed(EcoJob(data.path(), dtype), root.path());
    ASSERT_OK(undisturbed.job->Prepare(undisturbed.context));
    ASSERT_OK(undisturbed.job->Initialize());
    const std::vector<UnitResult> units = undisturbed.Units(8);
    EXPECT_LT(units.back().metrics.at("loss"), units.front().metrics.at("loss") - 0.5);
    for (const UnitResult& unit : units) {
      EXPECT_GT(unit.metrics.at("eco_changed_share"), 0);
      EXPECT_GT(unit.metrics.at("eco_injection_ratio"), 0);
      EXPECT_EQ(unit.metrics.at("eco_clipped_share"), 0);
    }
    ASSERT_OK_AND_ASSIGN(const v1::JobResult expected, undisturbed.job->Finish());
    ASSERT_EQ(expected.samples_size(), 1);
    EXPECT_THAT(expected.samples(0), StartsWith("The yard"));

    JobRank first(EcoJob(data.path(), dtype), other.path());
    ASSERT_OK(first.job->Prepare(first.context));
    ASSERT_OK(first.job->Initialize());
    first.Units(5);
    ckpt::CheckpointerOptions options;
    options.job_root = other.path();
    options.attempt = 1;
    options.fence = 1;
    v1::CheckpointManifest committed;
    const auto commit = [&](const v1::CheckpointManifest& manifest) {
      committed = manifest;
      return absl::OkStatus();
    };
    {
      const std::unique_ptr<ckpt::Checkpointer> checkpointer = ckpt::Checkpointer::Create(options, nullptr, commit);
      ASSERT_OK(checkpointer->Snapshot(5, [&](ckpt::CheckpointWriter& writer) { return first.job->Save(writer); }));
      ASSERT_OK(checkpointer->Wait().status);
    }
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ckpt::CheckpointReader> reader,
                         ckpt::CheckpointReader::Open(other.path(), committed, 0));
    EXPECT_TRUE(reader->Has("weight.codes/layers.0.qkv.weight"));
    EXPECT_TRUE(reader->Has("weight.scales/layers.0.qkv.weight"));
    EXPECT_FALSE(reader->Has("weight/layers.0.qkv.weight"));
    EXPECT_TRUE(reader->Has("weight/embedding.weight"));
    // `trainyard eval` and `generate` read it as the model that an export of this step is.
    ASSERT_OK_AND_ASSIGN(const v1::JobResult early, first.job->Finish());
    kernels::Stream stream(1);
    const auto storage = dtype == spec::FloatType::kFp32 ? kernels::DType::kF32 : kernels::DType::kBF16;
    ASSERT_OK_AND_ASSIGN(const tools::LoadedModel from_export,
                         tools::LoadModel(early.artifacts(0).path(), storage, stream));
    ASSERT_OK_AND_ASSIGN(
        const tools::LoadedModel from_checkpoint,
        tools::LoadModel(JoinPath(other.path(), "attempt-1-fence-1/checkpoints/step-00000005"), storage, stream));
    for (size_t i = 0; i < from_export.weights.all.size(); ++i) {
      const kernels::TensorView &a = from_export.weights.all[i], &b = from_checkpoint.weights.all[i];
      EXPECT_EQ(std::memcmp(a.data(), b.data(), static_cast<size_t>(a.bytes())), 0) << i;
    }

    JobRank second(EcoJob(data.path(), dtype), other.path());
    ASSERT_OK(second.job->Prepare(second.context));
    ASSERT_OK(second.job->Initialize());
    ASSERT_OK(second.job->Restore(*reader));
    const std::vector<UnitResult> rest = second.Units(3);
    for (size_t i = 0; i < 3; ++i) {
      for (const char* name : {"loss", "gradient_norm", "eco_changed_share", "eco_injection_ratio"}) {
        EXPECT_EQ(rest[i].metrics.at(name), units[5 + i].metrics.at(name)) << name;
      }
    }
    ASSERT_OK_AND_ASSIGN(const v1::JobResult result, second.job->Finish());
    EXPECT_EQ(Weights(result), Weights(expected));
    EXPECT_EQ(result.samples(0), expected.samples(0));
    EXPECT_EQ(result.values().at("evaluation_loss"), expected.values().at("evaluation_loss"));
  }
}

// A checkpoint whose codes or scales are cut or altered is refused, and the run goes on from the one before with the
// bits that it had.
TEST(CodedWeightsJobTest, ADamagedCheckpointIsRefusedForTheOneBefore) {
  train::testing::TinyDataset data;
  TempDir root;
  JobRank undisturbed(EcoJob(data.path(), spec::FloatType::kFp32), root.path());
  ASSERT_OK(undisturbed.job->Prepare(undisturbed.context));
  ASSERT_OK(undisturbed.job->Initialize());
  ckpt::CheckpointerOptions options;
  options.job_root = root.path();
  options.attempt = 1;
  options.fence = 1;
  options.keep_last = 2;
  std::vector<v1::CheckpointManifest> manifests;  // newest first
  const auto commit = [&](const v1::CheckpointManifest& manifest) {
    manifests.insert(manifests.begin(), manifest);
    return absl::OkStatus();
  };
  {
    const std::unique_ptr<ckpt::Checkpointer> checkpointer = ckpt::Checkpointer::Create(options, nullptr, commit);
    for (const int64_t step : {2, 4}) {
      undisturbed.Units(2);
      ASSERT_OK(
          checkpointer->Snapshot(step, [&](ckpt::CheckpointWriter& writer) { return undisturbed.job->Save(writer); }));
      ASSERT_OK(checkpointer->Wait().status);
    }
  }
  const std::vector<UnitResult> after = undisturbed.Units(1);

  const std::string shard = root.Join("attempt-1-fence-1/checkpoints/step-00000004/rank-0.safetensors");
  ASSERT_OK_AND_ASSIGN(const std::string whole, ReadFile(shard));
  std::vector<std::string> damages = {whole.substr(0, whole.size() / 2), whole.substr(0, whole.size() - 1)};
  {
    ASSERT_OK_AND_ASSIGN(const model::SafetensorsReader file, model::SafetensorsReader::Open(shard));
    for (const char* name : {"weight.codes/layers.0.qkv.weight", "weight.scales/layers.1.down.weight"}) {
      ASSERT_OK_AND_ASSIGN(const kernels::TensorView tensor, file.Tensor(name));
      const std::string bytes(static_cast<const char*>(tensor.data()), static_cast<size_t>(tensor.bytes()));
      const size_t at = whole.find(bytes);
      ASSERT_NE(at, std::string::npos);
      damages.push_back(whole);
      damages.back()[at + bytes.size() / 2] ^= 1;
    }
  }
  for (const std::string& damaged : damages) {
    ASSERT_OK(WriteFileAtomic(shard, damaged));
    EXPECT_THAT(ckpt::CheckpointReader::Open(root.path(), manifests[0], 0).status(),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("step-00000004/rank-0.safetensors")));
    kernels::Stream stream(1);
    EXPECT_EQ(tools::LoadModel(root.Join("attempt-1-fence-1/checkpoints/step-00000004"), kernels::DType::kF32, stream)
                  .status()
                  .code(),
              absl::StatusCode::kDataLoss);
    std::vector<int64_t> passed_over;
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ckpt::CheckpointReader> reader,
                         ckpt::CheckpointReader::OpenNewest(root.path(), manifests, 0, &passed_over));
    EXPECT_EQ(reader->step(), 2);
    EXPECT_THAT(passed_over, ElementsAre(4));
    JobRank second(EcoJob(data.path(), spec::FloatType::kFp32), root.path());
    ASSERT_OK(second.job->Prepare(second.context));
    ASSERT_OK(second.job->Initialize());
    ASSERT_OK(second.job->Restore(*reader));
    EXPECT_EQ(second.Units(3).back().metrics.at("loss"), after[0].metrics.at("loss"));
  }
}

// The export is numbers, and a run that starts from it rounds them to codes again: to where they were.
TEST(CodedWeightsJobTest, ARunStartsFromAnExportedModel) {
  train::testing::TinyDataset data;
  TempDir root, other;
  JobRank first(EcoJob(data.path(), spec::FloatType::kFp32), root.path());
  ASSERT_OK(first.job->Prepare(first.context));
  ASSERT_OK(first.job->Initialize());
  first.Units(8);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult trained, first.job->Finish());

  spec::JobOptions options = EcoJob(data.path(), spec::FloatType::kFp32);
  options.model.source = spec::PathModel{.path = trained.artifacts(0).path()};
  JobRank second(options, other.path());
  ASSERT_OK(second.job->Prepare(second.context));
  ASSERT_OK(second.job->Initialize());
  ASSERT_OK_AND_ASSIGN(const v1::JobResult imported, second.job->Finish());
  EXPECT_NEAR(imported.values().at("evaluation_loss"), trained.values().at("evaluation_loss"), 1e-4);
}

}  // namespace
}  // namespace trainyard::jobs
