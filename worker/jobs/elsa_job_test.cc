// A pretraining job with the Elsa optimizer: what it reports, resumes and exports.
#include <cmath>
#include <thread>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/prune/radix_select.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/ckpt/checkpointer.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/jobs/testing/job_rank.h"
#include "worker/model/safetensors.h"
#include "worker/train/testing/tiny_dataset.h"

namespace trainyard::jobs {
namespace {

using spec::ElsaOptions;
using ::testing::HasSubstr;

spec::JobOptions ElsaJob(const std::string& data) {
  spec::JobOptions options;
  spec::ShapeModel model;
  model.shape = {.vocab_size = 257,
                 .hidden_size = 24,
                 .intermediate_size = 40,
                 .num_hidden_layers = 2,
                 .num_attention_heads = 3,
                 .num_key_value_heads = 1,
                 .head_dim = 8};
  options.model.source = model;
  options.data.path = data;
  options.data.sequence_length = 32;
  options.seed = 4;
  options.training.steps = 9;
  options.training.micro_batch = 2;
  options.training.evaluation = {.interval_steps = 0, .batches = 2};
  options.training.schedule = {.shape = spec::ScheduleShape::kLinear, .final_fraction = 0};
  ElsaOptions elsa;
  elsa.learning_rate = 0.01;
  elsa.sparsity = 0.7;
  elsa.interval = 2;
  elsa.exclude = {"layers.1.down.weight", "*.v_proj.weight"};
  options.training.optimizer = elsa;
  options.kind = spec::PretrainOptions{};
  return options;
}

int64_t Zeros(const kernels::TensorView& tensor) {
  int64_t zeros = 0;
  for (int64_t i = 0; i < tensor.size(); ++i) zeros += tensor.as<float>()[i] == 0;
  return zeros;
}

TEST(ElsaJobTest, ExportsTheProjectedModelAndItsMasks) {
  train::testing::TinyDataset data;
  TempDir attempt;
  JobRank rank(ElsaJob(data.path()), attempt.path());
  ASSERT_OK(rank.job->Prepare(rank.context));
  ASSERT_OK(rank.job->Initialize());
  const std::vector<UnitResult> units = rank.Units(9);
  for (size_t i = 0; i < 9; ++i) {
    ASSERT_EQ(units[i].metrics.count("elsa_residual"), i % 2 == 0 ? 1u : 0u);
    if (i % 2 == 1) continue;
    EXPECT_NEAR(units[i].metrics.at("elsa_sparsity"), 0.7, 1e-3);
  }
  ASSERT_OK_AND_ASSIGN(const v1::JobResult result, rank.job->Finish());
  EXPECT_TRUE(result.values().contains("evaluation_loss"));

  ASSERT_OK_AND_ASSIGN(const model::SafetensorsReader model,
                       model::SafetensorsReader::Open(attempt.Join("model/model.safetensors")));
  ASSERT_OK_AND_ASSIGN(const model::SafetensorsReader masks,
                       model::SafetensorsReader::Open(attempt.Join("model/masks.safetensors")));
  EXPECT_EQ(masks.metadata().at("format"), "trainyard-masks-1");
  EXPECT_EQ(masks.entries().size(), 6u + 5);  // of 7 a block: no v_proj, and no down_proj in the second
  for (const auto& [name, entry] : model.entries()) {
    ASSERT_OK_AND_ASSIGN(const kernels::TensorView weight, model.Tensor(name));
    if (!masks.Has(name)) {
      EXPECT_EQ(Zeros(weight), 0) << name;
      continue;
    }
    EXPECT_EQ(Zeros(weight), kernels::PrunedCount(weight.size(), 700'000)) << name;
    ASSERT_OK_AND_ASSIGN(const kernels::TensorView bits, masks.Tensor(name));
    ASSERT_EQ(bits.size(), (weight.size() + 7) / 8);
    for (int64_t i = 0; i < weight.size(); ++i) {
      ASSERT_EQ((bits.as<uint8_t>()[i / 8] >> (i % 8)) & 1, weight.as<float>()[i] != 0) << name;
    }
  }
}

// Codes, scales and bits pass through a checkpoint like everything else.
TEST(ElsaJobTest, ResumesToTheSameModel) {
  train::testing::TinyDataset data;
  TempDir root, undisturbed_root;
  spec::JobOptions options = ElsaJob(data.path());
  auto& elsa = std::get<ElsaOptions>(options.training.optimizer);
  elsa.state_layout = ElsaOptions::StateLayout::kSeparate;
  elsa.z_dtype = ElsaOptions::DualType::kE4M3;
  elsa.u_dtype = ElsaOptions::DualType::kBf16;
  elsa.moments = ElsaOptions::Moments::kInt8;
  elsa.lambda_schedule = ElsaOptions::Schedule::kCosine;
  JobRank undisturbed(options, undisturbed_root.path());
  ASSERT_OK(undisturbed.job->Prepare(undisturbed.context));
  ASSERT_OK(undisturbed.job->Initialize());
  undisturbed.Units(9);
  ASSERT_OK(undisturbed.job->Finish().status());

  JobRank first(options, root.path());
  ASSERT_OK(first.job->Prepare(first.context));
  ASSERT_OK(first.job->Initialize());
  first.Units(4);
  ckpt::CheckpointerOptions checkpointing;
  checkpointing.job_root = root.path();
  checkpointing.attempt = 1;
  checkpointing.fence = 1;
  v1::CheckpointManifest committed;
  {
    const std::unique_ptr<ckpt::Checkpointer> checkpointer =
        ckpt::Checkpointer::Create(checkpointing, nullptr, [&](const v1::CheckpointManifest& manifest) {
          committed = manifest;
          return absl::OkStatus();
        });
    ASSERT_OK(checkpointer->Snapshot(4, [&](ckpt::CheckpointWriter& writer) { return first.job->Save(writer); }));
    ASSERT_OK(checkpointer->Wait().status);
  }
  JobRank second(options, root.path());
  ASSERT_OK(second.job->Prepare(second.context));
  ASSERT_OK(second.job->Initialize());
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ckpt::CheckpointReader> reader,
                       ckpt::CheckpointReader::Open(root.path(), committed, 0));
  ASSERT_OK(second.job->Restore(*reader));
  second.Units(5);
  ASSERT_OK(second.job->Finish().status());
  for (const char* file : {"model/model.safetensors", "model/masks.safetensors"}) {
    ASSERT_OK_AND_ASSIGN(const std::string expected, ReadFile(undisturbed_root.Join(file)));
    ASSERT_OK_AND_ASSIGN(const std::string resumed, ReadFile(root.Join(file)));
    EXPECT_EQ(resumed == expected, true) << file;
  }
}

// Replicas stay equal without a word about x, z and u; with lambda divided by two ranks the run is another.
TEST(ElsaJobTest, RanksProjectAlike) {
  train::testing::TinyDataset data;
  std::vector<double> residuals[2];
  for (const bool divides : {false, true}) {
    TempDir attempt;
    spec::JobOptions options = ElsaJob(data.path());
    auto& elsa = std::get<ElsaOptions>(options.training.optimizer);
    elsa.lambda_divide_by_world = divides;
    elsa.lambda = 0.5;
    std::vector<std::unique_ptr<comm::Communicator>> communicators = comm::MakeLocalCommunicators(2);
    std::vector<std::map<std::string, double>> last(2);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 2; ++rank) {
      threads.emplace_back([&, rank] {
        const auto r = static_cast<size_t>(rank);
        JobRank own(options, attempt.path(), rank, 2, communicators[r].get());
        TY_CHECK_OK(own.job->Prepare(own.context));
        TY_CHECK_OK(own.job->Initialize());
        last[r] = own.Units(9).back().metrics;
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const char* name : {"elsa_residual", "elsa_mask_iou", "elsa_first_mask_flips", "elsa_lambda"}) {
      EXPECT_EQ(last[0].at(name), last[1].at(name)) << name;
    }
    EXPECT_EQ(last[0].at("elsa_lambda"), divides ? 0.25 : 0.5);
    residuals[divides ? 1 : 0].push_back(last[0].at("elsa_residual"));
  }
  EXPECT_NE(residuals[0], residuals[1]);
}

TEST(ElsaJobTest, APatternThatDoesNotFitIsRefused) {
  train::testing::TinyDataset data;
  TempDir attempt;
  spec::JobOptions options = ElsaJob(data.path());
  std::get<spec::ShapeModel>(options.model.source).shape.intermediate_size = 42;
  auto& elsa = std::get<ElsaOptions>(options.training.optimizer);
  elsa.pattern = ElsaOptions::Pattern::k2To4;
  elsa.sparsity = 0.5;
  JobRank rank(options, attempt.path());
  EXPECT_THAT(rank.job->Prepare(rank.context),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("layers.0.mlp.down_proj.weight has 42")));
}

}  // namespace
}  // namespace trainyard::jobs
