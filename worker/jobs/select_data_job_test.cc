// Evidence 8 of influence-distillation.md, and the job's promises: what is selected, that it is the same for any number
// of ranks, order of the pool and interruption, and that a training takes it.
#include "worker/jobs/select_data_job.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/ckpt/checkpointer.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/data/sample_set_builder.h"
#include "worker/jobs/testing/job_rank.h"
#include "worker/jobs/testing/tiny_job.h"

namespace trainyard::jobs {
namespace {

using ::absl::StatusCode;
using spec::SelectionMethod;
using ::testing::HasSubstr;

// A line of one of two made-up languages, the words of which have no letter in common.
std::string Line(const std::string& id, bool is_first, int seed) {
  const char* const first[] = {"abba ", "cad ", "bead ", "decade ", "ebb "};
  const char* const second[] = {"qux ", "zyx ", "wuzy ", "xyzzy ", "quu "};
  std::string text;
  for (int word = 0; word < 5; ++word) text += (is_first ? first : second)[(seed * 7 + word * word * (seed + 3)) % 5];
  text += std::to_string(seed);
  return "{\"id\": \"" + id + "\", \"source\": \"" + (is_first ? "first" : "second") + "\", \"text\": \"" + text +
         "\"}";
}

class SelectDataJobTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::vector<std::string> lines;
    for (int i = 0; i < 60; ++i) lines.push_back(Line("p" + std::to_string(100 + i), i % 2 == 0, i));
    WriteSet("pool", lines);
    std::reverse(lines.begin(), lines.end());
    std::rotate(lines.begin(), lines.begin() + 17, lines.end());
    WriteSet("shuffled", lines);
    std::vector<std::string> targets;
    for (int i = 0; i < 6; ++i) targets.push_back(Line("t" + std::to_string(i), true, 200 + i));
    WriteSet("target", targets);
  }
  void WriteSet(const std::string& name, const std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    TY_CHECK_OK(WriteFileAtomic(dir_.Join(name + ".jsonl"), text));
    TY_CHECK_OK(data::BuildSampleSet({.inputs = {dir_.Join(name + ".jsonl")}, .output = dir_.Join(name)}));
  }
  spec::JobOptions Options(SelectionMethod method) {
    spec::JobOptions options = TinyLanguageModelJob("");
    options.training = {};
    spec::SelectDataOptions select;
    select.method = method;
    select.pool = dir_.Join("pool");
    select.target = dir_.Join("target");
    select.count = 20;
    select.sequence_length = 24;
    select.warmup = {.fraction = 0.2, .epochs = 4, .learning_rate = 5e-3, .batch = 4};
    select.landmarks.count = 40;
    select.gradients.projection_dim = 512;
    options.kind = select;
    return options;
  }
  static spec::SelectDataOptions& Kind(spec::JobOptions& options) {
    return std::get<spec::SelectDataOptions>(options.kind);
  }

  struct Outcome {
    v1::JobResult result;
    std::string index;  // samples.jsonl of the selection
    std::vector<std::string> ids;
    int64_t from_first = 0;
  };
  static Outcome Read(v1::JobResult result) {
    Outcome outcome;
    TY_CHECK_EQ(result.artifacts_size(), 1);
    const std::string path = result.artifacts(0).path();
    outcome.index = *ReadFile(JoinPath(path, "samples.jsonl"));
    const absl::StatusOr<data::SampleSet> set = data::SampleSet::Open(path);
    TY_CHECK_OK(set);
    for (int64_t i = 0; i < set->size(); ++i) {
      if (set->record(i).split == data::Split::kValidation) continue;
      outcome.ids.push_back(set->record(i).id);
      outcome.from_first += set->record(i).source == "first" ? 1 : 0;
    }
    outcome.result = std::move(result);
    return outcome;
  }
  absl::StatusOr<v1::JobResult> TryRun(const spec::JobOptions& options) {
    JobRank rank(options, dir_.Join("attempt"));
    TY_RETURN_IF_ERROR(rank.job->Prepare(rank.context));
    TY_RETURN_IF_ERROR(rank.job->Initialize());
    for (int i = 0; i < spec::kSelectionStages; ++i) TY_RETURN_IF_ERROR(rank.job->RunUnit().status());
    return rank.job->Finish();
  }
  Outcome Run(const spec::JobOptions& options) {
    absl::StatusOr<v1::JobResult> result = TryRun(options);
    TY_CHECK_OK(result);
    return Read(*std::move(result));
  }
  Outcome RunRanks(const spec::JobOptions& options, int ranks) {
    std::vector<std::unique_ptr<comm::Communicator>> communicators = comm::MakeLocalCommunicators(ranks);
    std::vector<v1::JobResult> results(static_cast<size_t>(ranks));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        const auto r = static_cast<size_t>(rank);
        JobRank own(options, dir_.Join("attempt"), rank, ranks, communicators[r].get());
        TY_CHECK_OK(own.job->Prepare(own.context));
        TY_CHECK_OK(own.job->Initialize());
        EXPECT_TRUE(own.Units(spec::kSelectionStages).back().done);
        absl::StatusOr<v1::JobResult> result = own.job->Finish();
        TY_CHECK_OK(result);
        results[r] = *std::move(result);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (int rank = 1; rank < ranks; ++rank) EXPECT_EQ(results[static_cast<size_t>(rank)].artifacts_size(), 0);
    return Read(std::move(results[0]));
  }

  TempDir dir_;
};

TEST_F(SelectDataJobTest, MethodsThatScoreSelectTheTargetsSource) {
  for (const SelectionMethod method : {SelectionMethod::kInfluence, SelectionMethod::kExact, SelectionMethod::kLess}) {
    const Outcome outcome = Run(Options(method));
    EXPECT_EQ(outcome.ids.size(), 20u);
    EXPECT_EQ(std::set<std::string>(outcome.ids.begin(), outcome.ids.end()).size(), 20u);
    EXPECT_GE(outcome.from_first, 16) << static_cast<int>(method);
  }
  const Outcome random = Run(Options(SelectionMethod::kRandom));
  EXPECT_EQ(random.ids.size(), 20u);
  EXPECT_LE(random.from_first, 15);
  EXPECT_EQ(Run(Options(SelectionMethod::kRdsPlus)).ids.size(), 20u);
  EXPECT_EQ(Run(Options(SelectionMethod::kFull)).ids.size(), 60u);
}

TEST_F(SelectDataJobTest, TellsWhatItDid) {
  const Outcome outcome = Run(Options(SelectionMethod::kInfluence));
  const auto& values = outcome.result.values();
  EXPECT_EQ(values.at("pool_samples"), 60);
  EXPECT_EQ(values.at("target_samples"), 6);
  EXPECT_EQ(values.at("unlabelled_samples"), 0);
  EXPECT_EQ(values.at("landmarks"), 40);
  EXPECT_EQ(values.at("selected"), 20);
  EXPECT_EQ(values.at("effective_size"), 20);
  EXPECT_EQ(values.at("empty_gradients"), 0);
  EXPECT_LE(std::abs(values.at("heldout_spearman")), 1);
  EXPECT_GT(values.at("seconds_embed"), 0);
  const auto report = nlohmann::json::parse(outcome.result.documents().at("report"));
  EXPECT_EQ(report["method"], "influence");
  ASSERT_EQ(report["sources"].size(), 2u);
  EXPECT_EQ(report["sources"][0]["source"], "first");
  EXPECT_EQ(report["sources"][0]["pool"], 30);
  EXPECT_EQ(report["sources"][0]["selected"], outcome.from_first);
  const absl::StatusOr<data::SampleSet> set = data::SampleSet::Open(outcome.result.artifacts(0).path());
  ASSERT_OK(set);
  EXPECT_EQ(set->info().provenance.method, "influence");
  EXPECT_EQ(set->info().provenance.pool_samples, 60);
  EXPECT_EQ(set->size(), 26);  // with the targets as the validation split
}

TEST_F(SelectDataJobTest, RanksChangeNothing) {
  for (const SelectionMethod method : {SelectionMethod::kInfluence, SelectionMethod::kExact, SelectionMethod::kRdsPlus,
                                       SelectionMethod::kLess, SelectionMethod::kRandom}) {
    const spec::JobOptions options = Options(method);
    const Outcome one = Run(options);
    EXPECT_EQ(RunRanks(options, 2).index, one.index) << static_cast<int>(method);
    if (method != SelectionMethod::kInfluence) continue;
    EXPECT_EQ(RunRanks(options, 4).index, one.index);
  }
}

TEST_F(SelectDataJobTest, TheOrderOfThePoolAndThreadsChangeNothing) {
  spec::JobOptions options = Options(SelectionMethod::kInfluence);
  const Outcome straight = Run(options);
  Kind(options).pool = dir_.Join("shuffled");
  options.world.threads_per_rank = 3;
  EXPECT_EQ(Run(options).ids, straight.ids);
}

TEST_F(SelectDataJobTest, AResumedSelectionEqualsTheUndisturbedOne) {
  spec::JobOptions options = Options(SelectionMethod::kInfluence);
  Kind(options).landmarks.strategy = spec::LandmarkStrategy::kKmeansPlusPlus;
  Kind(options).rule = spec::SelectionRule::kWeights;
  const Outcome expected = Run(options);
  for (const int stages : {1, 2, 3, 4, 5, 6, 7, 8}) {
    JobRank first(options, dir_.Join("first"));
    ASSERT_OK(first.job->Prepare(first.context));
    ASSERT_OK(first.job->Initialize());
    first.Units(stages);
    ckpt::CheckpointerOptions checkpoints;
    checkpoints.job_root = dir_.Join("root" + std::to_string(stages));
    checkpoints.attempt = 1;
    checkpoints.fence = 1;
    v1::CheckpointManifest committed;
    {
      const std::unique_ptr<ckpt::Checkpointer> checkpointer =
          ckpt::Checkpointer::Create(checkpoints, nullptr, [&](const v1::CheckpointManifest& manifest) {
            committed = manifest;
            return absl::OkStatus();
          });
      ASSERT_OK(
          checkpointer->Snapshot(stages, [&](ckpt::CheckpointWriter& writer) { return first.job->Save(writer); }));
      ASSERT_OK(checkpointer->Wait().status);
    }
    JobRank second(options, dir_.Join("second"));
    ASSERT_OK(second.job->Prepare(second.context));
    ASSERT_OK(second.job->Initialize());
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ckpt::CheckpointReader> reader,
                         ckpt::CheckpointReader::Open(checkpoints.job_root, committed, 0));
    ASSERT_OK(second.job->Restore(*reader));
    EXPECT_EQ(second.job->step(), stages);
    second.Units(spec::kSelectionStages - stages);
    ASSERT_OK_AND_ASSIGN(const v1::JobResult result, second.job->Finish());
    EXPECT_EQ(Read(result).index, expected.index) << stages;
  }
}

// Asked to stop in a stage, the job stays before it and then gives what it would have given.
TEST_F(SelectDataJobTest, AStageThatIsBrokenOffIsRunAgain) {
  const spec::JobOptions options = Options(SelectionMethod::kInfluence);
  const Outcome expected = Run(options);
  JobRank rank(options, dir_.Join("attempt"));
  ASSERT_OK(rank.job->Prepare(rank.context));
  ASSERT_OK(rank.job->Initialize());
  for (int stage = 0; stage < spec::kSelectionStages; ++stage) {
    rank.context.stops = true;
    const absl::StatusOr<UnitResult> stopped = rank.job->RunUnit();
    rank.context.stops = false;
    if (stopped.ok()) continue;  // a stage without a long loop
    EXPECT_EQ(stopped.status().code(), StatusCode::kCancelled);
    EXPECT_EQ(rank.job->step(), stage);
    ASSERT_OK(rank.job->RunUnit().status());
  }
  ASSERT_OK_AND_ASSIGN(const v1::JobResult result, rank.job->Finish());
  EXPECT_EQ(Read(result).index, expected.index);
}

TEST_F(SelectDataJobTest, WeightsHaveTheWantedSupportAndMeanOne) {
  for (const bool second_order : {false, true}) {
    spec::JobOptions options = Options(SelectionMethod::kInfluence);
    Kind(options).rule = spec::SelectionRule::kWeights;
    Kind(options).weights.second_order = second_order;
    Kind(options).landmarks.count = 15;
    Kind(options).sequence_length = 40;  // whole texts, so that no two influences are equal
    const Outcome outcome = Run(options);
    if (!second_order) {
      EXPECT_EQ(outcome.ids.size(), 20u);
    }
    const absl::StatusOr<data::SampleSet> set = data::SampleSet::Open(outcome.result.artifacts(0).path());
    ASSERT_OK(set);
    double sum = 0;
    for (size_t i = 0; i < outcome.ids.size(); ++i) {
      const double weight = set->record(static_cast<int64_t>(i)).weight;
      EXPECT_GT(weight, 0);
      sum += weight;
    }
    EXPECT_NEAR(sum, static_cast<double>(outcome.ids.size()), 1e-6);
    EXPECT_LE(outcome.result.values().at("effective_size"), 20.5);
    EXPECT_GT(outcome.result.values().at("lambda"), 0);
  }
}

TEST_F(SelectDataJobTest, WithAllSamplesAsLandmarksPropagationIsClose) {
  spec::JobOptions options = Options(SelectionMethod::kInfluence);
  Kind(options).landmarks.count = 60;
  Kind(options).propagation.damping = 1e-6;
  const Outcome all = Run(options), exact = Run(Options(SelectionMethod::kExact));
  std::set<std::string> shared;
  for (const std::string& id : all.ids) {
    if (std::count(exact.ids.begin(), exact.ids.end(), id) > 0) shared.insert(id);
  }
  EXPECT_GE(shared.size(), 18u);
}

TEST_F(SelectDataJobTest, BadInputIsRefusedWithTheNumbers) {
  spec::JobOptions options = Options(SelectionMethod::kInfluence);
  Kind(options).count = 61;
  EXPECT_THAT(TryRun(options).status(),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("select_data.count: 61 is more than the 60")));
  options = Options(SelectionMethod::kInfluence);
  Kind(options).gradients.parameters = {"nothing*"};
  EXPECT_THAT(TryRun(options).status(), StatusIs(StatusCode::kInvalidArgument, HasSubstr("nothing*")));
  options = Options(SelectionMethod::kInfluence);
  Kind(options).pool = dir_.Join("none");
  EXPECT_THAT(TryRun(options).status(), StatusIs(StatusCode::kNotFound, HasSubstr("data samples")));
  options = Options(SelectionMethod::kExact);
  Kind(options).warmup.fraction = 0;
  Kind(options).gradients.optimizer_scale = spec::SelectionScale::kAdam;
  EXPECT_THAT(TryRun(options).status(), StatusIs(StatusCode::kInvalidArgument, HasSubstr("needs a warm-up")));

  // A pool with a target sample in it, under another id.
  WriteSet("leaky", {Line("a", false, 1), Line("b", true, 203), Line("c", true, 3)});
  options = Options(SelectionMethod::kExact);
  Kind(options).pool = dir_.Join("leaky");
  Kind(options).count = 2;
  EXPECT_THAT(TryRun(options).status(),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("contains 1 of the 6 target samples: \"b\" is \"t3\"")));
  Kind(options).leak_test = true;
  EXPECT_EQ(Run(options).ids.size(), 2u);

  WriteSet("silent", {R"({"id": "x", "prompt": "only a prompt", "response": ""})"});
  options = Options(SelectionMethod::kExact);
  Kind(options).pool = dir_.Join("silent");
  EXPECT_THAT(TryRun(options).status(), StatusIs(StatusCode::kInvalidArgument, HasSubstr("no sample with a label")));
}

TEST_F(SelectDataJobTest, SamplesWithoutLabelsAreNeverSelected) {
  WriteSet("mixed", {Line("a", true, 1), R"({"id": "b", "prompt": "p", "response": ""})", Line("c", false, 2)});
  spec::JobOptions options = Options(SelectionMethod::kExact);
  Kind(options).pool = dir_.Join("mixed");
  Kind(options).count = 2;
  const Outcome outcome = Run(options);
  EXPECT_THAT(outcome.ids, ::testing::UnorderedElementsAre("a", "c"));
  EXPECT_EQ(outcome.result.values().at("unlabelled_samples"), 1);
}

// The relation that selection is for, on the job itself: at equal steps a training on what was selected for the target
// is better on the target than one on a random choice. And ranks train on the same samples.
TEST_F(SelectDataJobTest, ATrainingOnTheSelectionIsBetterOnTheTarget) {
  const auto train = [&](SelectionMethod method) {
    const Outcome selection = Run(Options(method));
    spec::JobOptions options = TinyLanguageModelJob("");
    options.data.samples = selection.result.artifacts(0).path();
    options.data.sequence_length = 24;
    options.training.steps = 60;
    options.training.micro_batch = 4;
    spec::AdamWOptions adam;
    adam.learning_rate = 3e-3;
    options.training.optimizer = adam;
    JobRank rank(options, dir_.Join("training"));
    TY_CHECK_OK(rank.job->Prepare(rank.context));
    TY_CHECK_OK(rank.job->Initialize());
    const std::vector<UnitResult> units = rank.Units(60);
    EXPECT_LT(units.back().metrics.at("loss"), units.front().metrics.at("loss") - 1);
    absl::StatusOr<v1::JobResult> result = rank.job->Finish();
    TY_CHECK_OK(result);
    return result->values().at("evaluation_loss");
  };
  const double random = train(SelectionMethod::kRandom), exact = train(SelectionMethod::kExact);
  const double influence = train(SelectionMethod::kInfluence);
  EXPECT_LT(exact, random - 0.02);
  EXPECT_LT(influence, exact + 0.1);
}

}  // namespace
}  // namespace trainyard::jobs
