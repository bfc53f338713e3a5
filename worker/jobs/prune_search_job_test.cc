// A whole pruning search with its trials in this process.
#include "worker/jobs/prune_search_job.h"

#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "worker/cache/file_cache.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/ckpt/checkpointer.h"
#include "worker/jobs/pretrain_job.h"
#include "worker/jobs/prune_task_job.h"
#include "worker/jobs/testing/local_trials.h"
#include "worker/model/hugging_face.h"
#include "worker/prune/search/baselines.h"
#include "worker/prune/search/evolution.h"
#include "worker/prune/task/candidate.h"
#include "worker/prune/task/testing/small_model.h"

namespace trainyard::jobs {
namespace {

using prune::testing::SmallModel;
using ::testing::Each;
using ::testing::HasSubstr;

const SmallModel& Model() {
  static const auto* const model = new SmallModel(/*kv_heads=*/2, /*layers=*/4, /*steps=*/250);
  return *model;
}

constexpr char kSearch[] = R"(
  name: "search" seed: 5
  model { path: "MODEL" }
  data { path: "DATA" sequence_length: 32 }
  prune_search {
    database { levels: 5 calibration_tokens: 4000 store_dtype: PRUNE_FLOAT_FP32 }
    search {
      target_level: 2 generations: 3 offspring: 5
      stages { survivors: 2 train_tokens: 100 evaluation_tokens: 200 }
      stages { survivors: 1 train_tokens: 200 evaluation_tokens: 400 }
      fine_tune { learning_rate: 1e-3 }
      train_pool_tokens: 4000 evaluation_pool_tokens: 4000
    }
    evaluation_batches: 4
  })";

// The spec with texts replaced.
v1::JobSpec SpecOf(std::vector<std::pair<std::string, std::string>> changes = {}) {
  changes.emplace_back("MODEL", Model().path());
  changes.emplace_back("DATA", Model().data_path());
  std::string text = kSearch;
  for (const auto& [from, to] : changes) {
    TY_CHECK(text.find(from) != std::string::npos);
    text = absl::StrReplaceAll(text, {{from, to}});
  }
  v1::JobSpec spec;
  TY_CHECK(google::protobuf::TextFormat::ParseFromString(text, &spec));
  return spec;
}

// The kinds that a search and its trials are of.
std::unique_ptr<Job> MakeOwnJob(const spec::JobOptions& options) {
  if (std::holds_alternative<spec::PruneSearchOptions>(options.kind)) return MakePruneSearchJob(options);
  if (std::holds_alternative<spec::PruneTaskOptions>(options.kind)) return MakePruneTaskJob(options);
  TY_CHECK(std::holds_alternative<spec::PretrainOptions>(options.kind));
  return MakePretrainJob(options);
}

class DriverContext final : public JobContext {
 public:
  DriverContext(JobPlace place, Trials* trials) : place_(std::move(place)), trials_(trials) {}
  const JobPlace& place() const override { return place_; }
  comm::Communicator* communicator() override { return nullptr; }
  bool ShouldStop() override { return false; }
  absl::StatusOr<bool> AgreeToStop() override { return false; }
  Trials* trials() override { return trials_; }
  void EnterSection(absl::string_view) override {}

 private:
  const JobPlace place_;
  Trials* const trials_;
};

// One attempt of the driver.
class Driver {
 public:
  Driver(const v1::JobSpec& spec, const std::string& job_dir, int attempt, Trials* trials)
      : context_(PlaceOf(spec, job_dir, attempt), trials) {
    absl::StatusOr<spec::JobOptions> options = spec::ParseJob(spec);
    TY_CHECK_OK(options);
    job_ = MakeOwnJob(*options);
  }
  Job& job() { return *job_; }
  absl::Status Prepare() {
    TY_RETURN_IF_ERROR(job_->Prepare(context_));
    return job_->Initialize();
  }
  absl::StatusOr<v1::JobResult> Run() {
    TY_RETURN_IF_ERROR(Prepare());
    return GoOn();
  }
  absl::StatusOr<v1::JobResult> GoOn() {
    for (bool done = false; !done;) {
      TY_ASSIGN_OR_RETURN(units.emplace_back(), job_->RunUnit());
      done = units.back().done;
    }
    return job_->Finish();
  }

  std::vector<UnitResult> units;

 private:
  static JobPlace PlaceOf(const v1::JobSpec& spec, const std::string& job_dir, int attempt) {
    JobPlace place;
    place.attempt = attempt;
    place.attempt_dir = JoinPath(job_dir, absl::StrCat("attempt-", attempt));
    TY_CHECK_OK(MakeDirs(place.attempt_dir));
    place.data_root = "/";
    place.spec = spec;
    return place;
  }

  DriverContext context_;
  std::unique_ptr<Job> job_;
};

LocalTrials TrialsIn(const std::string& folder, int parallel = 1, std::function<bool()> should_stop = nullptr,
                     cache::FileCache* file_cache = nullptr) {
  return LocalTrials({.base_dir = folder,
                      .parallel = parallel,
                      .make_job = MakeOwnJob,
                      .file_cache = file_cache,
                      .should_stop = std::move(should_stop)});
}

// All that must be equal between two runs of one search.
std::string Essence(const v1::JobResult& result) {
  std::string text;
  for (const char* name : {"kl", "perplexity", "tuned_kl", "parameters", "trials", "failed_trials"}) {
    absl::StrAppend(&text, name, " ", result.values().at(name), "\n");
  }
  for (const char* name : {"genome", "history", "baselines"}) absl::StrAppend(&text, result.documents().at(name), "\n");
  return text;
}

// Evidence 8. One fixed evaluation set and no fine-tuning: the plain search of EvoPress, whose best never gets worse
// and which is worth the while.
TEST(PruneSearchJobTest, BeatsTheUniformGenomeAndNeverLosesItsBest) {
  TempDir dir;
  LocalTrials trials = TrialsIn(dir.Join("trials"));
  const v1::JobSpec spec = SpecOf({{"train_tokens: 100", "train_tokens: 0"},
                                   {"train_tokens: 200", "train_tokens: 0"},
                                   {"generations: 3", "generations: 8 resample: false"},
                                   {"evaluation_tokens: 200", "evaluation_tokens: 1000"},
                                   {"evaluation_tokens: 400", "evaluation_tokens: 4000"},
                                   {"target_level: 2", "target_parameters: 100000"},
                                   {"offspring: 5", "offspring: 8"},
                                   {"survivors: 2", "survivors: 4"},
                                   {"evaluation_batches: 4",
                                    "evaluation_batches: 21 baselines: PRUNE_BASELINE_UNIFORM baselines: "
                                    "PRUNE_BASELINE_SPDY baselines: PRUNE_BASELINE_MAGNITUDE baselines: "
                                    "PRUNE_BASELINE_DEPTH"}});
  Driver driver(spec, dir.path(), 1, &trials);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult result, driver.Run());
  const auto& values = result.values();
  EXPECT_LE(values.at("kl"), values.at("uniform_kl"));
  EXPECT_LT(values.at("kl"), values.at("magnitude_kl"));
  EXPECT_LT(values.at("uniform_kl"), values.at("magnitude_kl"));
  EXPECT_GT(values.at("perplexity"), values.at("dense_perplexity"));
  for (const char* name : {"uniform_parameters", "magnitude_parameters"}) {
    EXPECT_EQ(values.at(name), values.at("parameters"));
  }
  EXPECT_LE(values.at("spdy_parameters"), values.at("uniform_parameters"));
  EXPECT_LT(values.at("parameters"), values.at("dense_parameters"));

  ASSERT_EQ(driver.units.size(), 11u);
  EXPECT_EQ(driver.units.back().total_steps, 11);
  double best = std::numeric_limits<double>::infinity();
  for (size_t i = 2; i < 10; ++i) {
    const std::map<std::string, double>& metrics = driver.units[i].metrics;
    EXPECT_EQ(metrics.at("generation"), static_cast<double>(i - 1));
    EXPECT_LE(metrics.at("best_fitness"), metrics.at("parent_fitness"));
    EXPECT_LE(metrics.at("best_fitness"), best);
    if (i > 2) {
      EXPECT_EQ(metrics.at("parent_fitness"), best) << "the same documents";
    }
    EXPECT_EQ(metrics.at("trials"), 8 + 5);
    best = metrics.at("best_fitness");
  }
  EXPECT_LT(best, driver.units[2].metrics.at("parent_fitness"));

  // The result's model is the genome's, of that size.
  ASSERT_EQ(result.artifacts_size(), 1);
  ASSERT_OK_AND_ASSIGN(const model::ModelConfig config, model::ReadConfig(result.artifacts(0).path()));
  EXPECT_EQ(static_cast<double>(model::ParameterCount(config)), values.at("parameters"));
  const nlohmann::json genome = nlohmann::json::parse(result.documents().at("genome"));
  for (size_t block = 0; block < 4; ++block) {
    EXPECT_EQ(genome["removed_heads"][block].size(), genome["attention"][block].get<size_t>());
    EXPECT_EQ(genome["removed_channels"][block].size(), 32 * genome["mlp"][block].get<size_t>());
  }

  // The same search without a job around it.
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> files, ListDir(dir.path()));
  std::vector<prune::Database> databases;  // of OBS and of magnitude: errors tell which, compensation lowers them
  for (const std::string& file : files) {
    if (file.rfind("database-", 0) != 0) continue;
    ASSERT_OK_AND_ASSIGN(databases.emplace_back(), prune::Database::Open(dir.Join(file)));
  }
  ASSERT_EQ(databases.size(), 2u);
  if (databases[1].Errors().mlp[0][2] < databases[0].Errors().mlp[0][2]) std::swap(databases[0], databases[1]);
  kernels::Stream stream(1);
  ASSERT_OK_AND_ASSIGN(const prune::LoadedModel dense,
                       prune::LoadDenseModel(Model().path(), kernels::DType::kF32, stream));
  ASSERT_OK_AND_ASSIGN(const prune::DocumentPool pool, prune::DocumentPool::Open({.directory = Model().data_path(),
                                                                                  .half = prune::Half::kSecond,
                                                                                  .sequence_length = 32,
                                                                                  .most_tokens = 4000,
                                                                                  .vocab_size = 257}));
  const prune::ParameterTable parameters =
      prune::ParametersOf(dense.config, {0, 16, 32, 48, 64}, {0, 32, 64, 96, 128}, true);
  ASSERT_OK_AND_ASSIGN(const prune::Genome start, prune::GenomeForParameters(parameters, 100000, 0.01));
  prune::Evolution evolution(
      {.mutation = {.levels = 5, .parameters = &parameters, .target_parameters = 100000, .tolerance = 0.01},
       .offspring = 8,
       .survivors = {4, 1},
       .seed = 5},
      start);
  prune::DistanceMeter meter(&dense, 32, 0, &stream);
  while (evolution.generation() < 8) {
    evolution.Begin();
    while (evolution.stage() != 0) {
      const int64_t tokens = evolution.stage() == 1 ? 1000 : 4000;
      ASSERT_OK_AND_ASSIGN(const std::vector<prune::Document> documents, pool.Draw(5, 1, tokens, true));
      std::vector<std::optional<double>> fitness;
      for (const prune::Genome& candidate : evolution.candidates()) {
        ASSERT_OK_AND_ASSIGN(const prune::LoadedModel small,
                             prune::StitchShrunk(dense, databases[0], candidate, true, stream));
        ASSERT_OK_AND_ASSIGN(const prune::Distance distance, meter.Measure(small, documents, [] { return false; }));
        fitness.push_back(distance.kl);
      }
      ASSERT_OK(evolution.Report(fitness));
    }
  }
  EXPECT_EQ(nlohmann::json::parse(ToJson(evolution.parent()))["mlp"], genome["mlp"]);
  EXPECT_EQ(nlohmann::json::parse(ToJson(evolution.parent()))["attention"], genome["attention"]);
}

// Runs trials in another order than asked, and one of them a first time for nothing, as when a worker was killed.
class Unruly final : public Trials {
 public:
  explicit Unruly(const std::string& folder) : folder_(folder), inner_(TrialsIn(folder)) {}
  absl::StatusOr<std::vector<v1::TrialOutcome>> Run(
      const v1::TrialGeneration& generation, const std::function<void(const v1::TrialOutcome&)>& on_outcome) override {
    std::vector<int> order(static_cast<size_t>(generation.specs_size()));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(static_cast<unsigned>(generation.number())));
    v1::TrialGeneration shuffled = generation;
    shuffled.clear_specs();
    for (int i : order) *shuffled.add_specs() = generation.specs(i);
    *shuffled.add_specs() = generation.specs(0);
    TY_ASSIGN_OR_RETURN(const std::vector<v1::TrialOutcome> outcomes, inner_.Run(shuffled, on_outcome));
    std::vector<v1::TrialOutcome> result(order.size());
    for (size_t i = 0; i < order.size(); ++i) {
      result[static_cast<size_t>(order[i])] = outcomes[i];
      result[static_cast<size_t>(order[i])].set_index(order[i]);
    }
    result[0] = outcomes.back();  // the one that came late
    result[0].set_index(0);
    return result;
  }

 private:
  const std::string folder_;
  LocalTrials inner_;
};

// Evidence 9.
TEST(PruneSearchJobTest, GenomesDoNotDependOnOrderRepetitionsOrRestarts) {
  const v1::JobSpec spec = SpecOf();
  TempDir dir;
  LocalTrials trials = TrialsIn(dir.Join("trials"));
  Driver undisturbed(spec, dir.path(), 1, &trials);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult expected, undisturbed.Run());

  TempDir parallel_dir;
  LocalTrials parallel = TrialsIn(parallel_dir.Join("trials"), 4);
  Driver with_four(spec, parallel_dir.path(), 1, &parallel);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult four, with_four.Run());
  EXPECT_EQ(Essence(four), Essence(expected));

  TempDir unruly_dir;
  Unruly unruly(unruly_dir.Join("trials"));
  Driver shuffled(spec, unruly_dir.path(), 1, &unruly);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult other_order, shuffled.Run());
  EXPECT_EQ(Essence(other_order), Essence(expected));

  // Killed in the middle of the second generation, without a checkpoint: the next attempt, in a folder of its own, asks
  // for everything again, gets what was recorded and runs the rest.
  TempDir killed_dir;
  bool stops = false;
  LocalTrials first_trials = TrialsIn(killed_dir.Join("trials"), 1, [&] { return stops; });
  Driver first(spec, killed_dir.path(), 1, &first_trials);
  ASSERT_OK(first.Prepare());
  for (int unit = 0; unit < 3; ++unit) ASSERT_OK(first.job().RunUnit());
  const int before = first_trials.run_count();
  stops = true;
  EXPECT_THAT(first.job().RunUnit(), StatusIs(absl::StatusCode::kCancelled, HasSubstr("stopped")));
  ckpt::CheckpointWriter last_words;  // as a runner may ask for before it goes
  EXPECT_OK(first.job().Save(last_words));
  LocalTrials second_trials = TrialsIn(killed_dir.Join("trials"));
  Driver second(spec, killed_dir.path(), 2, &second_trials);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult resumed, second.Run());
  EXPECT_EQ(Essence(resumed), Essence(expected));
  EXPECT_LE(first_trials.run_count() + second_trials.run_count(), trials.run_count());
  EXPECT_GE(before, 1 + 8 + 5 + 3);
}

TEST(PruneSearchJobTest, GoesOnFromACheckpoint) {
  const v1::JobSpec spec = SpecOf();
  TempDir dir;
  LocalTrials trials = TrialsIn(dir.Join("trials"));
  Driver first(spec, dir.path(), 1, &trials);
  ASSERT_OK(first.Prepare());
  v1::CheckpointManifest committed;
  ckpt::CheckpointerOptions options;
  options.job_root = dir.path();
  options.attempt = 1;
  options.fence = 1;
  const auto commit = [&](const v1::CheckpointManifest& manifest) {
    committed = manifest;
    return absl::OkStatus();
  };
  const std::unique_ptr<ckpt::Checkpointer> checkpointer = ckpt::Checkpointer::Create(options, nullptr, commit);
  for (int unit = 0; unit < 4; ++unit) ASSERT_OK(first.job().RunUnit());
  ASSERT_OK(checkpointer->Snapshot(4, [&](ckpt::CheckpointWriter& writer) { return first.job().Save(writer); }));
  ASSERT_OK(checkpointer->Wait().status);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult expected, first.GoOn());

  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ckpt::CheckpointReader> reader,
                       ckpt::CheckpointReader::Open(dir.path(), committed, 0));
  LocalTrials again = TrialsIn(dir.Join("trials"));
  Driver second(spec, dir.path(), 2, &again);
  ASSERT_OK(second.Prepare());
  ASSERT_OK(second.job().Restore(*reader));
  EXPECT_EQ(second.job().step(), 4);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult resumed, second.GoOn());
  EXPECT_EQ(second.units.size(), 2u);
  EXPECT_EQ(Essence(resumed), Essence(expected));
  EXPECT_EQ(again.run_count(), 0) << "all was recorded";
}

// Some or all candidates of a search fail; what leads up to it does not.
class Failing final : public Trials {
 public:
  Failing(const std::string& folder, int fails) : inner_(TrialsIn(folder)), fails_(fails) {}
  absl::StatusOr<std::vector<v1::TrialOutcome>> Run(
      const v1::TrialGeneration& generation, const std::function<void(const v1::TrialOutcome&)>& on_outcome) override {
    TY_ASSIGN_OR_RETURN(std::vector<v1::TrialOutcome> outcomes, inner_.Run(generation, on_outcome));
    const bool is_stage = generation.label().rfind("generation", 0) == 0;
    for (size_t i = 0; is_stage && i < std::min(outcomes.size(), static_cast<size_t>(fails_)); ++i) {
      outcomes[i].set_state(v1::JOB_STATE_FAILED);
      outcomes[i].mutable_exit()->set_message("out of memory");
    }
    return outcomes;
  }

 private:
  LocalTrials inner_;
  const int fails_;
};

TEST(PruneSearchJobTest, FailedCandidatesAreWorstAndAllFailedIsAnError) {
  const v1::JobSpec spec = SpecOf({{"generations: 3", "generations: 2"}});
  TempDir dir;
  Failing one(dir.Join("trials"), 1);
  Driver driver(spec, dir.path(), 1, &one);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult result, driver.Run());
  EXPECT_EQ(result.values().at("failed_trials"), 4);
  EXPECT_EQ(driver.units[2].metrics.at("failed_trials"), 2);
  Failing all(dir.Join("trials"), 1000);
  Driver failing(spec, dir.path(), 2, &all);
  EXPECT_THAT(failing.Run(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                      ::testing::AllOf(HasSubstr("out of memory"), HasSubstr("all 5 candidates"))));
}

TEST(PruneSearchJobTest, TrainsTheWinnerOn) {
  v1::JobSpec spec = SpecOf({{"generations: 3", "generations: 1"}, {"target_level: 2", "target_parameters: 120000"}});
  ASSERT_TRUE(google::protobuf::TextFormat::MergeFromString(
      "training { steps: 6 micro_batch: 4 optimizer { adamw { learning_rate: 1e-3 } } }", &spec));
  TempDir dir;
  LocalTrials trials = TrialsIn(dir.Join("trials"));
  Driver driver(spec, dir.path(), 1, &trials);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult result, driver.Run());
  EXPECT_NEAR(result.values().at("parameters"), 120000, 1200);
  EXPECT_LT(std::exp(result.values().at("continued_evaluation_loss")), result.values().at("perplexity"));
  ASSERT_OK_AND_ASSIGN(const model::ModelConfig config, model::ReadConfig(result.artifacts(0).path()));
  EXPECT_EQ(static_cast<double>(model::ParameterCount(config)), result.values().at("parameters"));
  EXPECT_TRUE(FileExists(JoinPath(result.artifacts(0).path(), "tokenizer.json")));
}

TEST(PruneSearchJobTest, RefusesWhatCannotBeSearched) {
  const auto prepare = [](const v1::JobSpec& spec) {
    TempDir dir;
    return Driver(spec, dir.path(), 1, nullptr).Prepare();
  };
  using Changes = std::vector<std::pair<std::string, std::string>>;
  const std::tuple<Changes, const char*> cases[] = {
      {{{"target_level: 2", "target_parameters: 1000"}}, "target_parameters: 1000 cannot be reached"},
      {{{"target_level: 2", "target_parameters: 100000000"}}, "100000000 cannot be reached"},
      {{{"levels: 5", "levels: 6"}}, "levels_attention: 6 levels need at least 5 groups of 16 columns"},
      {{{"levels: 5", "levels_attention: [0, 20, 64] levels_mlp: [0, 64, 128]"},
        {"target_level: 2", "target_level: 1"}},
       "levels_attention[1]: 20 is not a multiple of the model's head_dim 16"},
      {{{"levels: 5", "levels_attention: [0, 16, 64] levels_mlp: [0, 64, 100]"},
        {"target_level: 2", "target_level: 1"}},
       "levels_mlp: the last level removes 100 columns, not all 128"},
      {{{"sequence_length: 32", "sequence_length: 100000"}}, "sequence_length: 100000 not in [2, 2048]"},
      {{{"offspring: 5", "offspring: 5 fitness: PRUNE_FITNESS_TOP_K_KL"}}, "kl_top_k: 512 not in [1, 257]"},
      {{{"learning_rate: 1e-3", "master_dtype: PRUNE_FLOAT_BF16"}}, "master_dtype: bf16 needs model.dtype bf16"},
      {{{"path: \"MODEL\"", "path: \"MODEL\" from_scratch: true"}}, "a search needs weights"},
  };
  for (const auto& [changes, text] : cases) {
    EXPECT_THAT(prepare(SpecOf(changes)), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text))) << text;
  }
}

// Workers keep copies of the database: each of its files is read from its place once, and then not needed there.
TEST(PruneSearchJobTest, CandidatesReadTheDatabaseFromTheCacheWithEqualResults) {
  const v1::JobSpec spec = SpecOf({{"generations: 3", "generations: 1"}});
  TempDir plain_dir, dir;
  LocalTrials plain_trials = TrialsIn(plain_dir.Join("trials"));
  ASSERT_OK_AND_ASSIGN(const v1::JobResult plain, Driver(spec, plain_dir.path(), 1, &plain_trials).Run());

  cache::FileCache cache({.directory = dir.Join("cache"),
                          .limit_bytes = int64_t{1} << 30,
                          .min_free_bytes = 0,
                          .copies_from_same_disk = true});
  LocalTrials trials = TrialsIn(dir.Join("trials"), /*parallel=*/2, nullptr, &cache);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult cached, Driver(spec, dir.path(), 1, &trials).Run());
  EXPECT_EQ(Essence(cached), Essence(plain));
  const cache::FileCacheCounts search = cache.counts();
  ASSERT_OK_AND_ASSIGN(std::vector<std::string> copies, ListDir(dir.Join("cache")));
  EXPECT_EQ(search.misses, static_cast<int64_t>(copies.size()) - 1) << "the folder has a lock beside";
  // The index and 8 modules are read by each of the candidates: 5 + 2 and the parent + the winner, at least.
  EXPECT_GE(search.misses, 1 + 8);
  EXPECT_GE(search.hits, (1 + 8) * 8);
  EXPECT_EQ(search.bypasses, 0);
  EXPECT_EQ(search.damaged, 0);

  // A candidate again, with the database gone from its place.
  ASSERT_OK_AND_ASSIGN(const std::string asked, ReadFile(dir.Join("trials/generation-3/generation.pb")));
  ASSERT_OK_AND_ASSIGN(const std::string told, ReadFile(dir.Join("trials/generation-3/outcome-0.pb")));
  v1::TrialGeneration generation;
  v1::TrialOutcome first;
  ASSERT_TRUE(generation.ParseFromString(asked) && first.ParseFromString(told));
  generation.mutable_specs()->DeleteSubrange(1, generation.specs_size() - 1);
  ASSERT_TRUE(generation.specs(0).prune_task().has_candidate());
  ASSERT_OK(RemoveTree(generation.specs(0).prune_task().candidate().database()));
  ASSERT_OK(RemoveTree(dir.Join("trials")));
  LocalTrials again = TrialsIn(dir.Join("again"), 1, nullptr, &cache);
  ASSERT_OK_AND_ASSIGN(const std::vector<v1::TrialOutcome> outcomes, again.Run(generation, nullptr));
  EXPECT_EQ(outcomes[0].state(), v1::JOB_STATE_SUCCEEDED) << outcomes[0].exit().message();
  EXPECT_EQ(outcomes[0].result().values().at("fitness"), first.result().values().at("fitness"));
  EXPECT_EQ(cache.counts().misses, search.misses);
  LocalTrials without = TrialsIn(dir.Join("without"));
  ASSERT_OK_AND_ASSIGN(const std::vector<v1::TrialOutcome> failed, without.Run(generation, nullptr));
  EXPECT_EQ(failed[0].state(), v1::JOB_STATE_FAILED);
}

}  // namespace
}  // namespace trainyard::jobs
