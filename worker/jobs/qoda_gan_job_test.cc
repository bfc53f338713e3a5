#include "worker/jobs/qoda_gan_job.h"

#include <thread>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/ckpt/checkpointer.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/jobs/testing/job_rank.h"
#include "worker/model/safetensors.h"

namespace trainyard::jobs {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

spec::JobOptions TinyGan() {
  spec::QodaGanOptions gan;
  gan.networks = spec::GanMlpOptions{.hidden = 24, .layers = 2};
  gan.data = spec::GanMixtureOptions{};
  spec::QodaDaOptions qoda;
  qoda.lr_scale = 0.05;
  gan.optimizer = qoda;
  gan.ergodic_average = true;
  gan.updates = 6;
  gan.global_batch = 16;
  gan.latent_dim = 3;
  gan.evaluation_interval = 3;
  gan.sample_interval = 2;
  gan.evaluation_samples = 150;  // not a multiple of the chunks
  gan.sample_count = 70;
  spec::JobOptions options;
  options.seed = 4;
  options.communication.codec = spec::MaxminCodec{.bits = 4, .bucket_size = 64};
  options.communication.min_elements = 16;
  options.kind = gan;
  return options;
}

spec::QodaGanOptions& GanOf(spec::JobOptions& options) {
  return std::get<spec::QodaGanOptions>(options.kind);
}

std::vector<std::map<std::string, double>> Numbers(const std::vector<UnitResult>& units) {
  std::vector<std::map<std::string, double>> numbers;
  for (const UnitResult& unit : units) {
    numbers.emplace_back();
    for (const char* name : {"loss_d", "loss_g", "gradient_penalty", "gradient_norm", "eta", "gamma"}) {
      numbers.back()[name] = unit.metrics.at(name);
    }
  }
  return numbers;
}

TEST(QodaGanJobTest, TrainsScoresDrawsAndExports) {
  TempDir attempt;
  JobRank rank(TinyGan(), attempt.path());
  ASSERT_OK(rank.job->Prepare(rank.context));
  ASSERT_OK(rank.job->Initialize());
  EXPECT_GT(rank.job->MemoryPlan().at("weights"), 0);
  EXPECT_GT(rank.job->MemoryPlan().at("evaluation"), 0);
  EXPECT_EQ(rank.job->MemoryPlan().count("checkpoint"), 0u);
  const std::vector<UnitResult> units = rank.Units(6);
  for (size_t i = 0; i < 6; ++i) {
    const auto& metrics = units[i].metrics;
    EXPECT_EQ(units[i].step, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(units[i].total_steps, 6);
    EXPECT_EQ(units[i].done, i == 5);
    EXPECT_EQ(metrics.at("exchanges"), 1);
    EXPECT_GT(metrics.at("images_per_second"), 0);
    EXPECT_EQ(metrics.at("update_dropped"), 0);
    EXPECT_LE(metrics.at("eta"), 0.05);
    EXPECT_EQ(metrics.count("sliced_wasserstein"), i == 2 ? 1u : 0u);  // the last step's come with the result
    EXPECT_EQ(metrics.count("modes_covered"), i == 2 ? 1u : 0u);
  }
  EXPECT_EQ(units[0].metrics.at("eta"), 0.05);
  EXPECT_LT(units[1].metrics.at("eta"), 0.05);

  ASSERT_OK_AND_ASSIGN(const v1::JobResult result, rank.job->Finish());
  EXPECT_THAT(rank.context.sections, ElementsAre("evaluate", "train", "evaluate", "train", "export"));
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> grids, ListDir(attempt.Join("samples")));
  EXPECT_THAT(grids, ElementsAre("step-00000002.png", "step-00000004.png", "step-00000006.png"));
  ASSERT_EQ(result.artifacts_size(), 2);
  EXPECT_EQ(result.artifacts(0).name(), "generator");
  EXPECT_EQ(result.artifacts(0).path(), attempt.Join("generator"));
  EXPECT_GT(result.artifacts(0).bytes(), 0);
  EXPECT_EQ(result.artifacts(1).name(), "samples");
  EXPECT_GT(result.artifacts(1).bytes(), 0);
  EXPECT_EQ(result.values().at("updates"), 6);
  EXPECT_EQ(result.values().at("loss_d"), units[5].metrics.at("loss_d"));
  EXPECT_GT(result.values().at("sliced_wasserstein"), 0);
  EXPECT_TRUE(result.values().contains("modes_covered"));

  for (const char* name : {"generator", "generator_ema", "generator_average"}) {
    ASSERT_OK_AND_ASSIGN(
        const model::SafetensorsReader file,
        model::SafetensorsReader::Open(attempt.Join("generator/" + std::string(name) + ".safetensors")));
    int64_t elements = 0;
    for (const auto& [tensor, entry] : file.entries()) {
      EXPECT_THAT(tensor, HasSubstr("generator."));
      elements += entry.size();
    }
    EXPECT_EQ(elements, 3 * 24 + 24 + 24 * 24 + 24 + 24 * 2 + 2) << name;
  }
  EXPECT_TRUE(FileExists(attempt.Join("generator/discriminator.safetensors")));
}

// Runs `ranks` ranks from the checkpoint, if there is one, and returns rank 0's numbers; leaves a checkpoint after
// `save_after` units, as if the job had been killed later.
struct JobRun {
  std::vector<std::map<std::string, double>> numbers;
  std::string generator;  // bytes of the export, if the run came to its end
  v1::CheckpointManifest checkpoint;
};

JobRun RunJob(const spec::JobOptions& options, int ranks, const std::string& root, int units, int save_after,
              const v1::CheckpointManifest* from) {
  std::vector<std::unique_ptr<comm::Communicator>> communicators = comm::MakeLocalCommunicators(ranks);
  std::vector<std::unique_ptr<comm::Communicator>> background = comm::MakeLocalCommunicators(ranks);
  JobRun run;
  std::vector<std::vector<std::map<std::string, double>>> numbers(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const auto r = static_cast<size_t>(rank);
      JobRank own(options, root, rank, ranks, communicators[r].get());
      TY_CHECK_OK(own.job->Prepare(own.context));
      if (from == nullptr) {
        TY_CHECK_OK(own.job->Initialize());
      } else {
        const auto reader = ckpt::CheckpointReader::Open(root, *from, rank);
        TY_CHECK_OK(reader);
        TY_CHECK_OK(own.job->Restore(**reader));
      }
      ckpt::CheckpointerOptions checkpoint;
      checkpoint.job_root = root;
      checkpoint.attempt = 1;
      checkpoint.fence = 1;
      const auto commit = [&](const v1::CheckpointManifest& manifest) {
        run.checkpoint = manifest;
        return absl::OkStatus();
      };
      const auto checkpointer = ckpt::Checkpointer::Create(checkpoint, background[r].get(), commit);
      for (int i = 1; i <= units; ++i) {
        for (auto& number : Numbers(own.Units(1))) numbers[r].push_back(std::move(number));
        if (i != save_after) continue;
        TY_CHECK_OK(checkpointer->Snapshot(own.job->step(),
                                           [&](ckpt::CheckpointWriter& writer) { return own.job->Save(writer); }));
        TY_CHECK_OK(checkpointer->Wait().status);
      }
      if (own.job->step() < 6) return;
      TY_CHECK_OK(own.job->Finish());
      if (rank == 0) run.generator = *ReadFile(JoinPath(root, "generator/generator_average.safetensors"));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& other : numbers) EXPECT_EQ(other, numbers[0]);
  run.numbers = numbers[0];
  return run;
}

TEST(QodaGanJobTest, ResumeFromACheckpointEqualsTheUndisturbedRun) {
  for (const int ranks : {1, 2}) {
    for (const bool adapts : {false, true}) {
      spec::JobOptions options = TinyGan();
      if (adapts) {
        options.communication.codec = spec::LevelsCodec{.bits = 4, .bucket_size = 64, .refit_steps = {0, 2}};
        options.communication.exchange = spec::ExchangeKind::kAllGather;
      }
      TempDir root;
      const JobRun undisturbed = RunJob(options, ranks, root.path(), 6, 0, nullptr);
      ASSERT_FALSE(undisturbed.generator.empty());
      const JobRun first = RunJob(options, ranks, root.path(), 5, 4, nullptr);  // dies after step 5
      const JobRun second = RunJob(options, ranks, root.path(), 2, 0, &first.checkpoint);
      ASSERT_EQ(undisturbed.numbers.size(), 6u);
      EXPECT_EQ(second.numbers[0], undisturbed.numbers[4]) << ranks << " ranks, adapts " << adapts;
      EXPECT_EQ(second.numbers[1], undisturbed.numbers[5]) << ranks << " ranks, adapts " << adapts;
      EXPECT_TRUE(second.generator == undisturbed.generator) << ranks << " ranks, adapts " << adapts;
    }
  }
}

TEST(QodaGanJobTest, OtherDataIsAnotherRun) {
  TempDir root;
  const JobRun first = RunJob(TinyGan(), 1, root.path(), 2, 2, nullptr);
  spec::JobOptions options = TinyGan();
  GanOf(options).data = spec::GanMixtureOptions{.layout = spec::MixtureLayout::kGrid};
  JobRank other(options, root.path());
  ASSERT_OK(other.job->Prepare(other.context));
  ASSERT_OK_AND_ASSIGN(const auto reader, ckpt::CheckpointReader::Open(root.path(), first.checkpoint, 0));
  EXPECT_THAT(other.job->Restore(*reader),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("qoda_gan.data is not what the checkpoint")));
}

TEST(QodaGanJobTest, AStopCutsEvaluationShortAndLeavesNoResult) {
  TempDir attempt;
  JobRank rank(TinyGan(), attempt.path());
  ASSERT_OK(rank.job->Prepare(rank.context));
  ASSERT_OK(rank.job->Initialize());
  rank.context.stops = true;
  EXPECT_EQ(rank.Units(3)[2].metrics.count("sliced_wasserstein"), 0u);
  EXPECT_THAT(rank.job->Finish(), StatusIs(absl::StatusCode::kCancelled, HasSubstr("asked to stop")));
  EXPECT_FALSE(FileExists(attempt.Join("generator")));
}

TEST(QodaGanJobTest, SaysWhichFileIsMissing) {
  TempDir attempt;
  spec::JobOptions options = TinyGan();
  GanOf(options).networks = spec::Dcgan32Options{.filters = 8};
  GanOf(options).data = spec::GanIdxOptions{.images = "nowhere/images.gz", .labels = ""};
  JobRank rank(options, attempt.path());
  EXPECT_THAT(rank.job->Prepare(rank.context), StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/images.gz")));
}

// Bytes of an IDX file: u8, of the given extents.
std::string Idx(const std::vector<uint32_t>& extents, const std::string& values) {
  std::string bytes = {'\0', '\0', '\x08', static_cast<char>(extents.size())};
  for (const uint32_t extent : extents) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(extent >> shift);
  }
  return bytes + values;
}

TEST(QodaGanJobTest, LabelledImagesHaveAFrechetDistanceAndAGrid) {
  TempDir attempt;
  constexpr uint32_t kCount = 80;
  std::string pixels, labels;
  for (uint32_t i = 0; i < kCount; ++i) {
    labels += static_cast<char>(i % 2);
    for (uint32_t p = 0; p < 28 * 28; ++p) pixels += static_cast<char>(i % 2 == 0 ? p % 251 : 255 - (p * 7 + i) % 101);
  }
  ASSERT_OK(WriteFileAtomic(attempt.Join("images"), Idx({kCount, 28, 28}, pixels)));
  ASSERT_OK(WriteFileAtomic(attempt.Join("labels"), Idx({kCount}, labels)));
  spec::JobOptions options = TinyGan();
  spec::QodaGanOptions& gan = GanOf(options);
  gan.networks = spec::Dcgan32Options{.filters = 4};
  gan.data = spec::GanIdxOptions{.images = attempt.Join("images"), .labels = attempt.Join("labels")};
  gan.optimizer = spec::GameAdamOptions{};
  gan.updates = 2;
  gan.evaluation_samples = 80;
  gan.sample_count = 9;
  JobRank rank(options, attempt.path());
  ASSERT_OK(rank.job->Prepare(rank.context));
  ASSERT_OK(rank.job->Initialize());
  const UnitResult unit = rank.Units(2)[1];
  EXPECT_EQ(unit.metrics.at("lr_d"), 5e-4);
  EXPECT_EQ(unit.metrics.at("lr_g"), 5e-5);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult result, rank.job->Finish());
  EXPECT_GT(result.values().at("frechet_distance"), 0);
  EXPECT_FALSE(result.values().contains("modes_covered"));
  ASSERT_OK_AND_ASSIGN(const std::string png, ReadFile(attempt.Join("samples/step-00000002.png")));
  EXPECT_EQ(png.substr(1, 3), "PNG");
}

}  // namespace
}  // namespace trainyard::jobs
