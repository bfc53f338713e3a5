#include "worker/jobs/study_job.h"

#include <google/protobuf/text_format.h>

#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/spec/study_expand.h"
#include "scaling/report.h"

namespace trainyard::jobs {
namespace {

using ::testing::HasSubstr;

const scaling::Law kTruth = {std::log(60.0), 0.5, std::log(90.0), 0.45, std::log(0.9), 0.6};

v1::JobSpec Spec(const std::string& more = "") {
  v1::JobSpec spec;
  TY_CHECK(google::protobuf::TextFormat::ParseFromString(
      R"pb(
            name: "laws"
            seed: 9
            model {
              shape {
                vocab_size: 257
                hidden_size: 32
                intermediate_size: 64
                num_hidden_layers: 2
                num_attention_heads: 2
              }
            }
            data { path: "data/bytes" sequence_length: 32 }
            training { micro_batch: 4 }
            study {
              sizes { name: "small" }
              sizes { name: "middle" hidden_size: 64 intermediate_size: 128 }
              sizes { name: "large" hidden_size: 96 intermediate_size: 256 num_hidden_layers: 3 }
              tokens_per_parameter: [ 5, 15, 45, 90 ]
              recipes { name: "baseline" }
              recipes {
                name: "w4a4"
                linear { quest { weight_bits: 4 activation_bits: 4 hadamard_dim: 32 } }
              }
              recipes {
                name: "backward"
                linear { quartet { forward_method: FORWARD_METHOD_NONE } }
              }
              fit { bootstrap: 20 }
              predict { parameters: 1e6 tokens: 2e7 }
            }
      )pb" +
          more,
      &spec));
  return spec;
}

constexpr double kForwardEff = 0.61, kBackwardEff = 0.87;

double TrueLoss(const spec::StudyTraining& training) {
  const scaling::Multipliers eff[] = {{}, {kForwardEff, 1}, {1, kBackwardEff}};
  return scaling::Loss(kTruth, static_cast<double>(training.parameters), static_cast<double>(training.tokens),
                       eff[training.recipe]);
}

// Trainings whose losses follow the law. Outcomes are kept from call to call, as the service keeps them; after
// `stop_after` trainings the job is asked to stop.
class LawTrials final : public Trials {
 public:
  explicit LawTrials(const v1::JobSpec& spec) : trainings_(spec::ExpandStudy(spec, *spec::ParseJob(spec))) {}

  absl::StatusOr<std::vector<v1::TrialOutcome>> Run(
      const v1::TrialGeneration& generation, const std::function<void(const v1::TrialOutcome&)>& on_outcome) override {
    std::string digests;
    for (const v1::JobSpec& spec : generation.specs()) absl::StrAppend(&digests, spec::RequestDigest(spec), " ");
    if (!committed_.empty() && committed_ != digests) {
      return absl::FailedPreconditionError("committed with other specs");
    }
    committed_ = digests;
    max_parallel = generation.max_parallel();
    EXPECT_EQ(generation.specs_size(), static_cast<int>(trainings_.size()));
    outcomes_.resize(trainings_.size());
    for (size_t i = trainings_.size(); i-- > 0;) {  // any order
      if (outcomes_[i].state() == v1::JOB_STATE_UNSPECIFIED) {
        if (run_count == stop_after) return absl::CancelledError("asked to stop");
        ++run_count;
        outcomes_[i].set_index(static_cast<int>(i));
        outcomes_[i].set_state(v1::JOB_STATE_SUCCEEDED);
        (*outcomes_[i].mutable_result()->mutable_values())["evaluation_loss"] = TrueLoss(trainings_[i]);
        if (change) change(trainings_[i], &outcomes_[i]);
      }
      on_outcome(outcomes_[i]);
    }
    return outcomes_;
  }

  std::function<void(const spec::StudyTraining&, v1::TrialOutcome*)> change;
  int stop_after = 1'000'000;
  int run_count = 0;
  int max_parallel = 0;

 private:
  const std::vector<spec::StudyTraining> trainings_;
  std::vector<v1::TrialOutcome> outcomes_;
  std::string committed_;
};

class Context final : public JobContext {
 public:
  Context(const v1::JobSpec& spec, const std::string& attempt_dir, Trials* trials) : trials_(trials) {
    place_.attempt_dir = attempt_dir;
    place_.spec = spec;
  }
  const JobPlace& place() const override { return place_; }
  comm::Communicator* communicator() override { return nullptr; }
  bool ShouldStop() override { return stops; }
  absl::StatusOr<bool> AgreeToStop() override { return stops; }
  Trials* trials() override { return trials_; }
  void EnterSection(absl::string_view) override {}

  bool stops = false;

 private:
  JobPlace place_;
  Trials* const trials_;
};

struct Attempt {
  Attempt(const v1::JobSpec& spec, Trials* trials)
      : context(spec, dir.path(), trials), job(MakeStudyJob(*spec::ParseJob(spec))) {
    TY_CHECK_OK(job->Prepare(context));
    TY_CHECK_OK(job->Initialize());
  }
  TempDir dir;
  Context context;
  std::unique_ptr<Job> job;
};

TEST(StudyJobTest, FindsTheEfficienciesOfALaw) {
  const v1::JobSpec spec = Spec();
  LawTrials trials(spec);
  Attempt attempt(spec, &trials);
  ASSERT_OK_AND_ASSIGN(const UnitResult unit, attempt.job->RunUnit());
  EXPECT_TRUE(unit.done);
  EXPECT_EQ(trials.max_parallel, 4);
  EXPECT_EQ(unit.metrics.at("children_done"), 36);
  EXPECT_EQ(unit.metrics.at("children_failed"), 0);
  EXPECT_NEAR(unit.metrics.at("eff_w4a4"), kForwardEff, 1e-4);
  EXPECT_LT(unit.metrics.at("eff_w4a4_width"), 1e-3);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult result, attempt.job->Finish());
  const auto& values = result.values();
  EXPECT_NEAR(values.at("eff_w4a4"), kForwardEff, 1e-4);
  EXPECT_NEAR(values.at("eff_backward"), kBackwardEff, 1e-4);
  EXPECT_LE(values.at("eff_w4a4_low"), values.at("eff_w4a4") + 1e-9);
  EXPECT_NEAR(values.at("law_alpha"), 0.5, 1e-3);
  EXPECT_EQ(values.at("runs"), 36);
  EXPECT_EQ(values.at("excluded_runs"), 0);
  EXPECT_LT(values.at("held_out_error"), 1e-3);

  ASSERT_OK_AND_ASSIGN(const scaling::StudyReport report, scaling::ParseReport(result.documents().at("report")));
  EXPECT_FALSE(report.is_partial);
  EXPECT_EQ(report.fit.runs.size(), 36u);
  ASSERT_EQ(report.predictions.size(), 3u);
  EXPECT_NEAR(report.predictions[0].loss, scaling::Loss(kTruth, 1e6, 2e7), 1e-3);
  EXPECT_NEAR(report.capacities.at("w4a4"), 0.672, 1e-3);  // two tensors of 4 bits

  ASSERT_EQ(result.artifacts_size(), 1);
  EXPECT_EQ(result.artifacts(0).name(), "losses");
  ASSERT_OK_AND_ASSIGN(const std::string table, ReadFile(JoinPath(result.artifacts(0).path(), "runs.tsv")));
  ASSERT_OK_AND_ASSIGN(const auto runs, scaling::ParseRuns(table));
  EXPECT_EQ(runs.size(), 36u);
  for (const scaling::StudyRun& run : runs) {
    EXPECT_EQ(run.acts_on == scaling::ActsOn::kTokens, run.recipe == "backward");
    EXPECT_EQ(run.bits == 4, run.recipe == "w4a4");
  }
}

TEST(StudyJobTest, TrainingsWithoutALossAreLeftOutAndToldOf) {
  const v1::JobSpec spec = Spec();
  LawTrials trials(spec);
  trials.change = [](const spec::StudyTraining& training, v1::TrialOutcome* outcome) {
    if (training.recipe != 1 || training.ratio != 0) return;
    if (training.size == 0) {
      outcome->set_state(v1::JOB_STATE_FAILED);
      outcome->mutable_exit()->set_reason("NAN");
      outcome->mutable_exit()->set_message("loss is nan at step 3");
      outcome->clear_result();
    } else if (training.size == 1) {
      (*outcome->mutable_result()->mutable_values())["evaluation_loss"] = NAN;
    } else {
      outcome->mutable_result()->mutable_values()->erase("evaluation_loss");
    }
  };
  Attempt attempt(spec, &trials);
  ASSERT_OK_AND_ASSIGN(const UnitResult unit, attempt.job->RunUnit());
  EXPECT_EQ(unit.metrics.at("children_failed"), 3);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult result, attempt.job->Finish());
  EXPECT_NEAR(result.values().at("eff_w4a4"), kForwardEff, 1e-4);
  EXPECT_EQ(result.values().at("runs"), 33);
  EXPECT_EQ(result.values().at("excluded_runs"), 3);
  ASSERT_OK_AND_ASSIGN(const scaling::StudyReport report, scaling::ParseReport(result.documents().at("report")));
  ASSERT_EQ(report.excluded.size(), 3u);
  EXPECT_EQ(report.excluded[0].reason, "FAILED: NAN loss is nan at step 3");
  EXPECT_EQ(report.excluded[1].reason, "evaluation loss nan");
  EXPECT_THAT(report.excluded[2].reason, HasSubstr("no evaluation loss"));
  for (const scaling::ExcludedRun& excluded : report.excluded) {
    EXPECT_EQ(excluded.run.recipe, "w4a4");
    EXPECT_NEAR(excluded.loss_at_least,
                scaling::Loss(kTruth, excluded.run.parameters, excluded.run.tokens, {kForwardEff, 1}), 1e-3);
  }
}

TEST(StudyJobTest, ABaselineThatFailedIsAnErrorThatKeepsTheLosses) {
  const v1::JobSpec spec = Spec();
  LawTrials trials(spec);
  trials.change = [](const spec::StudyTraining& training, v1::TrialOutcome* outcome) {
    if (training.recipe != 0 || training.size == 0) return;
    outcome->set_state(v1::JOB_STATE_CANCELLED);
    outcome->mutable_exit()->set_reason("CANCELLED");
  };
  Attempt attempt(spec, &trials);
  EXPECT_THAT(attempt.job->RunUnit(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       ::testing::AllOf(HasSubstr("8 of 36 trainings gave no loss (the first: CANCELLED"),
                                        HasSubstr("the baseline has 4 different pairs"))));
  EXPECT_TRUE(FileExists(attempt.dir.Join("losses/runs.tsv")));
}

TEST(StudyJobTest, AnAttemptAfterAStopGivesTheSameBytesAndRepeatsNothing) {
  const v1::JobSpec spec = Spec();
  LawTrials undisturbed_trials(spec), trials(spec);
  Attempt undisturbed(spec, &undisturbed_trials);
  ASSERT_OK(undisturbed.job->RunUnit().status());
  ASSERT_OK_AND_ASSIGN(const v1::JobResult expected, undisturbed.job->Finish());

  trials.stop_after = 20;
  Attempt first(spec, &trials);
  EXPECT_THAT(first.job->RunUnit(), StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  EXPECT_EQ(first.job->step(), 0);
  trials.stop_after = 1'000'000;
  {
    Attempt second(spec, &trials);
    ASSERT_OK(second.job->RunUnit().status());
    EXPECT_EQ(second.job->step(), 1);
  }  // killed before Finish
  Attempt third(spec, &trials);
  ASSERT_OK_AND_ASSIGN(const v1::JobResult result, third.job->Finish());  // as after the checkpoint of step 1
  EXPECT_EQ(trials.run_count, 36);
  EXPECT_EQ(result.documents().at("report"), expected.documents().at("report"));
  for (const auto& [name, value] : expected.values()) EXPECT_EQ(result.values().at(name), value) << name;
}

TEST(StudyJobTest, AStopDuringTheFitEndsIt) {
  const v1::JobSpec spec = Spec();
  LawTrials trials(spec);
  Attempt attempt(spec, &trials);
  attempt.context.stops = true;
  EXPECT_THAT(attempt.job->RunUnit(), StatusIs(absl::StatusCode::kCancelled, ::testing::_));
}

}  // namespace
}  // namespace trainyard::jobs
