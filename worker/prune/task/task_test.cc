// The parts of a pruning task on a small model that was trained a little.
#include <cmath>
#include <cstring>
#include <thread>

#include "base/digest.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/prune/obs.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/data/loader.h"
#include "worker/prune/search/baselines.h"
#include "worker/prune/search/evolution.h"
#include "worker/prune/task/candidate.h"
#include "worker/prune/task/database.h"
#include "worker/prune/task/hessians.h"
#include "worker/prune/task/testing/pruned_model.h"

namespace trainyard::prune {
namespace {

using kernels::DType;
using kernels::TensorView;
using spec::PruneModule;
using testing::CalibrateInto;
using testing::FirstDocuments;
using ::testing::HasSubstr;
using testing::kSequence;
using testing::Never;
using testing::Pruned;

Pruned& Grouped() {
  static auto* const pruned = new Pruned(2);
  return *pruned;
}
Pruned& Ungrouped() {
  static auto* const pruned = new Pruned(4);
  return *pruned;
}

std::vector<float> Values(const TensorView& tensor) {
  return {tensor.as<float>(), tensor.as<float>() + tensor.size()};
}

// Ragged groups, a block without attention, one without an MLP.
const Genome kMixed{{1, 4, 2}, {3, 1, 4}};

TEST(HessiansTest, AreTheMomentsOfWhatTheLayersRead) {
  Pruned& pruned = Grouped();
  const std::vector<Document> documents = FirstDocuments(pruned.model, Half::kFirst, 300);
  TempDir one, two, ranked;
  ASSERT_OK(CalibrateInto(one.path(), pruned.dense, documents));
  // Held block by block, for want of memory: the same files.
  ASSERT_OK(CalibrateInto(two.path(), pruned.dense, documents, nullptr, 1));
  const auto communicators = comm::MakeLocalCommunicators(3);
  std::vector<std::thread> threads;
  std::vector<absl::Status> statuses(3);
  for (size_t rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      statuses[rank] = CalibrateInto(ranked.path(), pruned.dense, documents, communicators[rank].get());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) ASSERT_OK(status);

  for (PruneModule module : {PruneModule::kAttention, PruneModule::kMlp}) {
    const int64_t columns = module == PruneModule::kAttention ? 64 : 128;
    for (int64_t block = 0; block < 3; ++block) {
      ASSERT_OK_AND_ASSIGN(const std::vector<float> h, ReadHessian(HessianPath(one.path(), block, module), columns));
      ASSERT_OK_AND_ASSIGN(const std::vector<float> again,
                           ReadHessian(HessianPath(two.path(), block, module), columns));
      EXPECT_EQ(h, again);
      ASSERT_OK_AND_ASSIGN(const std::vector<float> ranks,
                           ReadHessian(HessianPath(ranked.path(), block, module), columns));
      double trace = 0;
      for (int64_t i = 0; i < columns; ++i) trace += h[static_cast<size_t>(i * columns + i)];
      EXPECT_GT(trace, 0);
      for (size_t i = 0; i < h.size(); ++i) ASSERT_NEAR(h[i], ranks[i], 1e-5 * trace);
    }
  }
  EXPECT_THAT(ReadHessian(HessianPath(one.path(), 0, PruneModule::kMlp), 64),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("(64, 64)")));
}

// The error that is stored is the one that the layer makes on the calibration data: half of trace(dW H dW^T).
TEST(DatabaseTest, ErrorsAreThoseOfTheStoredWeights) {
  Pruned& pruned = Grouped();
  const StoredModule& module = pruned.database.module(1, PruneModule::kMlp);
  ASSERT_OK_AND_ASSIGN(const std::vector<float> dense, ReadModuleWeights(pruned.model.path(), pruned.model.config(), 1,
                                                                         PruneModule::kMlp, pruned.stream));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> h,
                       ReadHessian(HessianPath(pruned.dir.Join("hessians"), 1, PruneModule::kMlp), 128));
  double mean = 0;
  for (size_t i = 0; i < 128; ++i) mean += h[i * 128 + i] / 128.0;
  for (int32_t level = 1; level < 4; ++level) {
    ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> kept, pruned.database.Kept(module, level));
    ASSERT_EQ(kept.size(), 128u - 32u * static_cast<size_t>(level));
    std::vector<float> compact(64 * kept.size());
    ASSERT_OK(pruned.database.ReadWeights(
        module, level, {compact.data(), DType::kF32, {64, static_cast<int64_t>(kept.size())}}, pruned.stream));
    std::vector<double> change(dense.begin(), dense.end());
    for (size_t row = 0; row < 64; ++row) {
      for (size_t i = 0; i < kept.size(); ++i) {
        change[row * 128 + static_cast<size_t>(kept[i])] -= compact[row * kept.size() + i];
      }
    }
    double error = 0;
    for (size_t row = 0; row < 64; ++row) {
      for (size_t i = 0; i < 128; ++i) {
        for (size_t j = 0; j < 128; ++j) {
          const double damped = h[i * 128 + j] + (i == j ? 0.01 * mean : 0.0);
          error += 0.5 * change[row * 128 + i] * damped * change[row * 128 + j];
        }
      }
    }
    EXPECT_NEAR(module.levels[static_cast<size_t>(level)].error, error, 1e-4 * error);
  }
}

TEST(DatabaseTest, NamesFilesByTheirContentAndNoticesOthers) {
  Pruned& pruned = Grouped();
  const StoredModule& module = pruned.database.module(0, PruneModule::kAttention);
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> files, ListDir(module.folder));
  EXPECT_EQ(files.size(), 4u);  // three levels and the index: the first and the last need none
  for (const std::string& file : files) {
    if (file == "levels.json") continue;
    ASSERT_OK_AND_ASSIGN(const std::string digest, DigestOfFile(JoinPath(module.folder, file)));
    EXPECT_EQ(file, digest + ".safetensors");
  }
  EXPECT_THAT(pruned.database.CheckGenome({{0, 0, 0}, {0, 5, 0}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("mlp_levels[1]: 5 not in [0, 5)")));
  EXPECT_THAT(pruned.database.CheckGenome({{0, 0}, {0, 0}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("2 levels, the database has 3")));

  // An index that names other levels than the folder has.
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(std::string index, ReadFile(pruned.dir.Join("index.json")));
  const size_t digest = index.find("\"digest\": \"");
  index[digest + 11] = index[digest + 11] == '0' ? '1' : '0';
  ASSERT_OK(WriteFileAtomic(dir.Join("index.json"), index));
  EXPECT_THAT(Database::Open(dir.Join("index.json")), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("levels.json")));
  ASSERT_OK(WriteFileAtomic(dir.Join("index.json"), "{"));
  EXPECT_THAT(Database::Open(dir.Join("index.json")), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("index.json")));
}

TEST(ParametersTest, OfGenomesAreThoseOfTheSmallModels) {
  for (Pruned* pruned : {&Grouped(), &Ungrouped()}) {
    const ParameterTable table =
        ParametersOf(pruned->model.config(), {0, 16, 32, 48, 64}, {0, 32, 64, 96, 128}, /*prune_kv_heads=*/true);
    for (const Genome& genome : {kMixed, UniformGenome(3, 0), UniformGenome(3, 2), UniformGenome(3, 4)}) {
      ASSERT_OK_AND_ASSIGN(const LoadedModel small,
                           StitchShrunk(pruned->dense, pruned->database, genome, true, pruned->stream));
      EXPECT_EQ(table.Count(genome), model::ParameterCount(small.config)) << ToJson(genome);
    }
  }
}

// Evidence 6 and 7: nothing removed is nothing lost, and the small network is the large one with zero columns.
TEST(CandidateTest, ShrunkAndZeroedModelsAreEquallyFar) {
  for (Pruned* pruned : {&Grouped(), &Ungrouped()}) {
    const std::vector<Document> documents = FirstDocuments(pruned->model, Half::kSecond, 400);
    DistanceMeter meter(&pruned->dense, kSequence, 0, &pruned->stream);
    ASSERT_OK_AND_ASSIGN(const LoadedModel same,
                         StitchShrunk(pruned->dense, pruned->database, UniformGenome(3, 0), true, pruned->stream));
    ASSERT_OK_AND_ASSIGN(const Distance nothing, meter.Measure(same, documents, Never));
    EXPECT_EQ(nothing.kl, 0);
    EXPECT_EQ(nothing.loss, nothing.dense_loss);

    ASSERT_OK_AND_ASSIGN(const LoadedModel small,
                         StitchShrunk(pruned->dense, pruned->database, kMixed, true, pruned->stream));
    ASSERT_OK_AND_ASSIGN(const LoadedModel zeroed,
                         StitchDense(pruned->dense, pruned->database, kMixed, pruned->stream));
    EXPECT_LT(model::ParameterCount(small.config), model::ParameterCount(zeroed.config));
    ASSERT_OK_AND_ASSIGN(const Distance shrunk, meter.Measure(small, documents, Never));
    ASSERT_OK_AND_ASSIGN(const Distance masked, meter.Measure(zeroed, documents, Never));
    EXPECT_GT(shrunk.kl, 0.01);
    EXPECT_NEAR(shrunk.kl, masked.kl, 1e-5 * shrunk.kl + 1e-6);
    EXPECT_NEAR(shrunk.loss, masked.loss, 1e-5);

    // A few words only: another number, of the same kind.
    DistanceMeter top(&pruned->dense, kSequence, 20, &pruned->stream);
    ASSERT_OK_AND_ASSIGN(const Distance top_20, top.Measure(small, documents, Never));
    EXPECT_GT(top_20.kl, 0);
    EXPECT_NE(top_20.kl, shrunk.kl);
  }
}

TEST(CandidateTest, DocumentsOfAnyLengthCountAlike) {
  Pruned& pruned = Grouped();
  ASSERT_OK_AND_ASSIGN(const LoadedModel small,
                       StitchShrunk(pruned.dense, pruned.database, kMixed, true, pruned.stream));
  std::vector<Document> documents = FirstDocuments(pruned.model, Half::kSecond, 100);
  documents[0].resize(5);
  documents[1].resize(17);
  documents[2].resize(1);  // of a cut: no position
  DistanceMeter meter(&pruned.dense, kSequence, 0, &pruned.stream);
  ASSERT_OK_AND_ASSIGN(const Distance together, meter.Measure(small, documents, Never));
  double sum = 0;
  int64_t positions = 0;
  for (const Document& document : documents) {
    if (document.size() < 2) continue;
    ASSERT_OK_AND_ASSIGN(const Distance one, meter.Measure(small, {document}, Never));
    EXPECT_EQ(one.positions, static_cast<int64_t>(document.size()) - 1);
    sum += one.kl * static_cast<double>(one.positions);
    positions += one.positions;
  }
  EXPECT_EQ(together.positions, positions);
  EXPECT_NEAR(together.kl, sum / static_cast<double>(positions), 1e-9);
  EXPECT_THAT(meter.Measure(small, {Document{3}}, Never),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("evaluation_tokens")));
  EXPECT_THAT(meter.Measure(small, documents, [] { return true; }),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("asked to stop")));
}

struct Tuned {
  LoadedModel model;
  std::optional<double> loss;
};
Tuned Tune(Pruned& pruned, spec::PruneEnforcement enforcement, DType dtype = DType::kF32,
           spec::PruneFloat master = spec::PruneFloat::kFp32, double rate = 1e-3) {
  absl::StatusOr<LoadedModel> dense = LoadDenseModel(pruned.model.path(), dtype, pruned.stream);
  TY_CHECK_OK(dense);
  absl::StatusOr<LoadedModel> model = enforcement == spec::PruneEnforcement::kShrink
                                          ? StitchShrunk(*dense, pruned.database, kMixed, true, pruned.stream)
                                          : StitchDense(*dense, pruned.database, kMixed, pruned.stream);
  TY_CHECK_OK(model);
  absl::StatusOr<std::vector<BlockRemoval>> removals = pruned.database.Removals(kMixed);
  TY_CHECK_OK(removals);
  FineTuneArgs args;
  args.options = {.learning_rate = rate, .batch_documents = 2, .enforcement = enforcement, .master_dtype = master};
  args.sequence_length = kSequence;
  args.removals = &*removals;
  args.should_stop = Never;
  const std::vector<Document> documents = FirstDocuments(pruned.model, Half::kFirst, 3000);
  absl::StatusOr<std::optional<double>> loss = FineTune(args, documents, *model, pruned.stream);
  TY_CHECK_OK(loss);
  return {*std::move(model), *loss};
}

// What was removed from block 0's MLP, as element values.
std::vector<float> RemovedColumns(Pruned& pruned, const LoadedModel& model) {
  absl::StatusOr<std::vector<BlockRemoval>> removals = pruned.database.Removals(kMixed);
  TY_CHECK_OK(removals);
  std::vector<float> values;
  const TensorView& down = model.weights.blocks[0].down;
  for (int32_t channel : (*removals)[0].channels) {
    for (int64_t row = 0; row < 64; ++row) {
      const int64_t at = row * 128 + channel;
      values.push_back(down.dtype() == DType::kF32 ? down.as<float>()[at]
                                                   : kernels::ToFloat(down.as<kernels::BFloat16>()[at]));
    }
  }
  return values;
}

// Evidence 7: with MASK the pruned entries are exactly 0 after training, with NONE they grow again.
TEST(FineTuneTest, EnforcementKeepsOrLosesTheZeros) {
  Pruned& pruned = Grouped();
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tuned masked = Tune(pruned, spec::PruneEnforcement::kMask, dtype);
    EXPECT_THAT(RemovedColumns(pruned, masked.model), ::testing::Each(0.0f));
    const Tuned free = Tune(pruned, spec::PruneEnforcement::kNone, dtype);
    EXPECT_THAT(RemovedColumns(pruned, free.model), ::testing::Not(::testing::Each(0.0f)));
  }
}

TEST(FineTuneTest, BringsTheSmallModelNearerToTheDenseOne) {
  Pruned& pruned = Grouped();
  const std::vector<Document> documents = FirstDocuments(pruned.model, Half::kSecond, 1000);
  DistanceMeter meter(&pruned.dense, kSequence, 0, &pruned.stream);
  ASSERT_OK_AND_ASSIGN(const LoadedModel before,
                       StitchShrunk(pruned.dense, pruned.database, kMixed, true, pruned.stream));
  ASSERT_OK_AND_ASSIGN(const Distance untuned, meter.Measure(before, documents, Never));
  const Tuned tuned = Tune(pruned, spec::PruneEnforcement::kShrink);
  ASSERT_OK_AND_ASSIGN(const Distance after, meter.Measure(tuned.model, documents, Never));
  EXPECT_LT(after.kl, 0.7 * untuned.kl);
  EXPECT_EQ(tuned.model.config.blocks, before.config.blocks);
}

// Section 4: in pure bf16 a rate of 1e-5 moves only weights below 2^-8; f32 masters move all.
TEST(FineTuneTest, MastersMoveWhatBf16Cannot) {
  Pruned& pruned = Grouped();
  absl::StatusOr<LoadedModel> dense = LoadDenseModel(pruned.model.path(), DType::kBF16, pruned.stream);
  ASSERT_OK(dense);
  ASSERT_OK_AND_ASSIGN(const LoadedModel before, StitchShrunk(*dense, pruned.database, kMixed, true, pruned.stream));
  const auto moved = [&](const LoadedModel& after) {
    int64_t count = 0;
    const TensorView &a = before.weights.final_norm, &b = after.weights.final_norm;
    for (int64_t i = 0; i < a.size(); ++i) {
      count += a.as<kernels::BFloat16>()[i].bits != b.as<kernels::BFloat16>()[i].bits;
    }
    return count;
  };
  // Norm weights are about 1, spaced 2^-7: 47 steps of 1e-5 are no half of it for one bf16 number, and all of them
  // together about an eighth: with masters some, without none.
  const Tuned pure = Tune(pruned, spec::PruneEnforcement::kShrink, DType::kBF16, spec::PruneFloat::kBf16, 1e-5);
  const Tuned masters = Tune(pruned, spec::PruneEnforcement::kShrink, DType::kBF16, spec::PruneFloat::kFp32, 1e-4);
  EXPECT_EQ(moved(pure.model), 0);
  EXPECT_GT(moved(masters.model), 0);
  ASSERT_TRUE(pure.loss.has_value());
  EXPECT_TRUE(std::isfinite(*pure.loss));
}

TEST(FineTuneTest, IsTheSameForAnyNumberOfThreads) {
  Pruned& pruned = Grouped();
  std::vector<std::vector<float>> heads;
  for (const int threads : {1, 3}) {
    kernels::Stream stream(threads);
    ASSERT_OK_AND_ASSIGN(LoadedModel model, StitchShrunk(pruned.dense, pruned.database, kMixed, true, stream));
    FineTuneArgs args;
    args.options.learning_rate = 1e-3;
    args.sequence_length = kSequence;
    args.should_stop = Never;
    ASSERT_OK(FineTune(args, FirstDocuments(pruned.model, Half::kFirst, 300), model, stream));
    heads.push_back(Values(model.weights.head));
  }
  EXPECT_EQ(heads[0], heads[1]);
}

}  // namespace
}  // namespace trainyard::prune
