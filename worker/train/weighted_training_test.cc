// Training on samples: the loss of a step is the weighted mean over samples of the mean over their labels, whatever the
// padding, the micro-batches and the ranks (worker/data/sample_loader.h).
#include <cmath>
#include <thread>

#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/data/sample_loader.h"
#include "worker/train/testing/tiny_run.h"

namespace trainyard::train {
namespace {

class WeightedTrainingTest : public ::testing::Test {
 protected:
  // Four samples of different lengths, labels and weights, and one for validation.
  void SetUp() override {
    absl::StatusOr<data::SampleSetWriter> writer = data::SampleSetWriter::Create(dir_.path(), 257, 256, "{}");
    TY_CHECK_OK(writer);
    for (int i = 0; i < 5; ++i) {
      data::SampleRecord record;
      record.id = std::to_string(i);
      record.weight = 1 + i;
      record.label_begin = 1 + i;
      if (i == 4) record.split = data::Split::kValidation;
      std::vector<int32_t> tokens;
      for (int t = 0; t < 6 + 2 * i; ++t) tokens.push_back((37 * i + 11 * t * t) % 256);
      TY_CHECK_OK(writer->Add(record, tokens));
    }
    TY_CHECK_OK(writer->Finish({.method = "random"}).status());
  }

  std::unique_ptr<data::SampleLoader> Load(int64_t length, int rank = 0, int ranks = 1) {
    absl::StatusOr<std::unique_ptr<data::SampleLoader>> loader =
        data::SampleLoader::Open({.directory = dir_.path(),
                                  .sequence_length = static_cast<int>(length),
                                  .rank = rank,
                                  .world_size = ranks,
                                  .seed = 1,
                                  .vocab_size = 257});
    TY_CHECK_OK(loader);
    return *std::move(loader);
  }
  static std::unique_ptr<Trainer> Make(int64_t length, int micro_batch, int accumulation) {
    TrainerOptions options = testing::TinyTrainerOptions(spec::AdamWOptions());
    options.sequence_length = length;
    options.training.micro_batch = micro_batch;
    options.training.accumulation = accumulation;
    options.weighted_targets = true;
    absl::StatusOr<std::unique_ptr<Trainer>> trainer = Trainer::Create(options);
    TY_CHECK_OK(trainer);
    (*trainer)->Initialize();
    return *std::move(trainer);
  }
  // Mean cross-entropy over the labels of one sample, by the network alone, without weights.
  double SampleLoss(int64_t sample) {
    const std::unique_ptr<Trainer> trainer = Make(32, 1, 1);
    const absl::StatusOr<data::SampleSet> set = data::SampleSet::Open(dir_.path());
    TY_CHECK_OK(set);
    const model::Network& network = trainer->network();
    data::WriteSampleRow(*set->Tokens(sample, 33), set->record(sample).label_begin, 1,
                         {.tokens = network.tokens().as<int32_t>(),
                          .targets = network.targets().as<int32_t>(),
                          .weights = network.target_weights().as<float>(),
                          .length = 32});
    trainer->network().Forward(trainer->stream());
    double sum = 0;
    for (int64_t i = 0; i < 32; ++i) sum += double{network.losses().as<float>()[i]};
    return sum / static_cast<double>(set->record(sample).LabelCount(32));
  }

  TempDir dir_;
};

TEST_F(WeightedTrainingTest, LossIsTheWeightedMeanOverSamplesOfTheirMeans) {
  double expected = 0;
  for (int64_t i = 0; i < 4; ++i) expected += static_cast<double>(1 + i) / 2.5 * SampleLoss(i) / 4;
  std::vector<double> norms;
  for (const int64_t length : {16, 32}) {  // padding of different lengths
    for (const int micro_batch : {1, 2, 4}) {
      const std::unique_ptr<Trainer> trainer = Make(length, micro_batch, 4 / micro_batch);
      const std::unique_ptr<data::SampleLoader> loader = Load(length);
      ASSERT_OK_AND_ASSIGN(const StepResult result, trainer->Step(*loader));
      EXPECT_NEAR(result.loss, expected, 1e-5) << length << " " << micro_batch;
      norms.push_back(result.gradient_norm);
      EXPECT_NEAR(norms.back() / norms.front(), 1, 1e-4);
    }
  }
}

TEST_F(WeightedTrainingTest, RanksShareTheSamplesAndAgreeOnTheLoss) {
  const std::unique_ptr<Trainer> alone = Make(16, 4, 1);
  const std::unique_ptr<data::SampleLoader> all = Load(16);
  std::vector<double> expected;
  for (int step = 0; step < 3; ++step) {
    const absl::StatusOr<StepResult> result = alone->Step(*all);
    ASSERT_OK(result);
    expected.push_back(result->loss);
  }
  std::vector<std::unique_ptr<comm::Communicator>> communicators = comm::MakeLocalCommunicators(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      const std::unique_ptr<Trainer> trainer = Make(16, 2, 1);
      const std::unique_ptr<data::SampleLoader> loader = Load(16, rank, 2);
      TY_CHECK_OK(trainer->Connect({}, communicators[static_cast<size_t>(rank)].get()));
      for (const double loss : expected) {
        const absl::StatusOr<StepResult> result = trainer->Step(*loader);
        TY_CHECK_OK(result);
        EXPECT_NEAR(result->loss, loss, 1e-4);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(WeightedTrainingTest, EvaluationIsTheMeanOverLabels) {
  const std::unique_ptr<Trainer> trainer = Make(32, 2, 1);
  const std::unique_ptr<data::SampleLoader> loader = Load(32);
  const absl::StatusOr<double> loss = trainer->Evaluate(*loader, 1, []() -> absl::StatusOr<bool> { return false; });
  ASSERT_OK(loss);
  EXPECT_NEAR(*loss, SampleLoss(4), 1e-5);
}

}  // namespace
}  // namespace trainyard::train
