#include "worker/jobs/study_job.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "proto/spec/study_expand.h"
#include "scaling/report.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/study/recipe_traits.h"

namespace trainyard::jobs {
namespace {

constexpr int64_t kGeneration = 1;
constexpr int kPartialBootstrap = 50;
const absl::Duration kPartialInterval = absl::Seconds(10);

class StudyJob final : public Job {
 public:
  explicit StudyJob(const spec::JobOptions& options)
      : options_(options), study_(std::get<spec::StudyOptions>(options_.kind)) {}

  absl::Status Prepare(JobContext& context) override;
  std::map<std::string, int64_t> MemoryPlan() const override { return {}; }
  absl::Status Initialize() override {
    step_ = 0;
    return absl::OkStatus();
  }
  absl::Status Restore(ckpt::CheckpointReader& reader) override;
  absl::Status Save(ckpt::CheckpointWriter& writer) override {
    writer.AddText("study", absl::StrCat(step_));
    return absl::OkStatus();
  }
  int64_t step() const override { return step_; }
  absl::StatusOr<UnitResult> RunUnit() override;
  absl::StatusOr<v1::JobResult> Finish() override;

 private:
  // What became of one training: a run with a loss, or why there is none.
  struct Ending {
    scaling::StudyRun run;
    std::string reason;  // empty: run.loss is good
  };

  Ending EndingOf(const v1::TrialOutcome& outcome) const;
  absl::Status RunTrainings();
  std::vector<scaling::StudyRun> Runs() const;
  int FailedCount() const;
  absl::StatusOr<scaling::StudyReport> MakeReport(int bootstrap, bool is_partial);
  void TellPartial();
  // The fit of all trainings, made once.
  absl::Status FitAll();

  const spec::JobOptions options_;
  const spec::StudyOptions& study_;
  JobContext* context_ = nullptr;
  std::vector<spec::StudyTraining> trainings_;
  std::vector<study::RecipeTraits> traits_;     // by recipe
  std::vector<std::optional<Ending>> endings_;  // by training
  std::optional<scaling::StudyReport> report_;
  absl::Duration last_partial_ = absl::ZeroDuration();
  int64_t step_ = 0;
};

absl::Status StudyJob::Prepare(JobContext& context) {
  context_ = &context;
  const v1::JobSpec& spec = context.place().spec;
  if (spec.study().recipes_size() != static_cast<int>(study_.recipes.size())) {
    return absl::InvalidArgumentError("study: the job's record has no study, or another one");
  }
  trainings_ = spec::ExpandStudy(spec, options_);
  endings_.assign(trainings_.size(), std::nullopt);
  traits_.assign(study_.recipes.size(), {});
  std::vector<bool> is_known(study_.recipes.size());
  for (const spec::StudyTraining& training : trainings_) {
    const auto recipe = static_cast<size_t>(training.recipe);
    if (is_known[recipe]) continue;
    is_known[recipe] = true;
    TY_ASSIGN_OR_RETURN(const spec::JobOptions options, spec::ParseJob(training.spec));
    traits_[recipe] = study::TraitsOf(options.training.linear);
    // The form without the outer exponent is published with one efficiency a method, of N.
    if (study_.fit.form == spec::StudyForm::kChinchilla) traits_[recipe].acts_on = scaling::ActsOn::kParameters;
  }
  return absl::OkStatus();
}

absl::Status StudyJob::Restore(ckpt::CheckpointReader& reader) {
  TY_ASSIGN_OR_RETURN(const std::string text, reader.Text("study"));
  if (!absl::SimpleAtoi(text, &step_) || step_ < 0 || step_ > 1) {
    return absl::DataLossError(absl::StrCat("study step \"", text, "\" is not 0 or 1"));
  }
  return absl::OkStatus();
}

StudyJob::Ending StudyJob::EndingOf(const v1::TrialOutcome& outcome) const {
  const spec::StudyTraining& training = trainings_[static_cast<size_t>(outcome.index())];
  const auto recipe = static_cast<size_t>(training.recipe);
  Ending ending;
  ending.run.recipe = study_.recipes[recipe].name;
  ending.run.name = study_.sizes[static_cast<size_t>(training.size)].name;
  ending.run.parameters = static_cast<double>(training.parameters);
  ending.run.tokens = static_cast<double>(training.tokens);
  ending.run.seed = training.seed;
  ending.run.acts_on = traits_[recipe].acts_on;
  ending.run.bits = traits_[recipe].bits;
  if (outcome.state() != v1::JOB_STATE_SUCCEEDED) {
    std::string state = v1::JobState_Name(outcome.state());
    ending.reason =
        absl::StrCat(state.substr(state.rfind('_') + 1), ": ", outcome.exit().reason(), " ", outcome.exit().message());
    return ending;
  }
  const auto loss = outcome.result().values().find("evaluation_loss");
  if (loss == outcome.result().values().end()) {
    ending.reason = "no evaluation loss: the data set has no validation split";
  } else if (!std::isfinite(loss->second) || loss->second <= 0) {
    ending.reason = absl::StrCat("evaluation loss ", loss->second);
  } else {
    ending.run.loss = loss->second;
  }
  return ending;
}

std::vector<scaling::StudyRun> StudyJob::Runs() const {
  std::vector<scaling::StudyRun> runs;
  for (const std::optional<Ending>& ending : endings_) {
    if (ending && ending->reason.empty()) runs.push_back(ending->run);
  }
  return runs;
}

int StudyJob::FailedCount() const {
  return static_cast<int>(std::count_if(endings_.begin(), endings_.end(), [](const std::optional<Ending>& ending) {
    return ending && !ending->reason.empty();
  }));
}

absl::StatusOr<scaling::StudyReport> StudyJob::MakeReport(int bootstrap, bool is_partial) {
  scaling::StudyFitOptions options;
  options.objective.form =
      study_.fit.form == spec::StudyForm::kChinchilla ? scaling::Form::kChinchilla : scaling::Form::kOuterExponent;
  options.objective.huber_delta = study_.fit.huber_delta;
  options.two_stage = study_.fit.two_stage;
  options.bootstrap = bootstrap;
  options.seed = options_.seed.value_or(0);
  options.validate = !is_partial;
  options.should_stop = [this] { return context_->ShouldStop(); };
  scaling::StudyReport report;
  report.is_partial = is_partial;
  report.trainings = static_cast<int>(trainings_.size());
  TY_ASSIGN_OR_RETURN(report.fit, scaling::FitStudy(Runs(), options));
  for (size_t i = 0; i < study_.recipes.size(); ++i) {
    if (traits_[i].capacity) report.capacities[study_.recipes[i].name] = *traits_[i].capacity;
  }
  for (const std::optional<Ending>& ending : endings_) {
    if (!ending || ending->reason.empty()) continue;
    scaling::ExcludedRun excluded{ending->run, ending->reason, 0};
    for (const scaling::Prediction& prediction :
         scaling::Predict(report.fit, ending->run.parameters, ending->run.tokens)) {
      if (prediction.recipe == ending->run.recipe) excluded.loss_at_least = prediction.loss;
    }
    report.excluded.push_back(std::move(excluded));
  }
  for (const spec::StudyPoint& point : study_.predict) {
    for (scaling::Prediction& prediction : scaling::Predict(report.fit, point.parameters, point.tokens)) {
      report.predictions.push_back(std::move(prediction));
    }
  }
  return report;
}

std::string Summary(const scaling::StudyFit& fit) {
  std::string text;
  for (const scaling::RecipeFit& recipe : fit.recipes) {
    const bool is_tokens = recipe.acts_on == scaling::ActsOn::kTokens;
    const scaling::Interval& interval = is_tokens ? recipe.tokens_interval : recipe.parameters_interval;
    absl::StrAppendFormat(&text, "%s eff(%s) %.4g", text.empty() ? ":" : ",", recipe.name,
                          is_tokens ? recipe.eff.tokens : recipe.eff.parameters);
    if (std::isfinite(interval.low95)) absl::StrAppendFormat(&text, " [%.4g, %.4g]", interval.low95, interval.high95);
  }
  return text;
}

void StudyJob::TellPartial() {
  const absl::Duration now = RealClock()->Monotonic();
  if (now - last_partial_ < kPartialInterval) return;
  last_partial_ = now;
  const auto done =
      std::count_if(endings_.begin(), endings_.end(), [](const auto& ending) { return ending.has_value(); });
  const absl::StatusOr<scaling::StudyReport> report =
      MakeReport(std::min(study_.fit.bootstrap, kPartialBootstrap), /*is_partial=*/true);
  LogInfo(done, " of ", trainings_.size(), " trainings done, ", FailedCount(), " of them without a loss",
          report.ok() ? Summary(report->fit) : "");
  if (!report.ok()) return;  // too few yet
  const absl::Status written =
      WriteFileAtomic(JoinPath(context_->place().attempt_dir, "partial-report.json"), scaling::FormatReport(*report));
  if (!written.ok()) LogWarning("the partial report was not written: ", written.ToString());
}

absl::Status StudyJob::RunTrainings() {
  Trials* const trials = context_->trials();
  if (trials == nullptr) return absl::InternalError("a study has no way to ask for trials");
  v1::TrialGeneration generation;
  generation.set_number(kGeneration);
  generation.set_label("trainings");
  generation.set_max_parallel(study_.max_parallel);
  for (const spec::StudyTraining& training : trainings_) *generation.add_specs() = training.spec;
  last_partial_ = RealClock()->Monotonic();
  TY_ASSIGN_OR_RETURN(const std::vector<v1::TrialOutcome> outcomes,
                      trials->Run(generation, [this](const v1::TrialOutcome& outcome) {
                        endings_[static_cast<size_t>(outcome.index())] = EndingOf(outcome);
                        TellPartial();
                      }));
  TY_CHECK_EQ(outcomes.size(), trainings_.size());
  for (const v1::TrialOutcome& outcome : outcomes) {
    endings_[static_cast<size_t>(outcome.index())] = EndingOf(outcome);
  }
  return absl::OkStatus();
}

absl::Status StudyJob::FitAll() {
  if (report_) return absl::OkStatus();
  context_->EnterSection("trials");
  TY_RETURN_IF_ERROR(RunTrainings());
  context_->EnterSection("fit");
  const std::string directory = JoinPath(context_->place().attempt_dir, "losses");
  TY_RETURN_IF_ERROR(MakeDirs(directory));
  // First, so that the losses are there even if they determine no law.
  TY_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(directory, "runs.tsv"), scaling::FormatRuns(Runs())));
  absl::StatusOr<scaling::StudyReport> report = MakeReport(study_.fit.bootstrap, /*is_partial=*/false);
  if (absl::IsFailedPrecondition(report.status())) {
    std::string first;
    for (const std::optional<Ending>& ending : endings_) {
      if (first.empty() && ending) first = ending->reason;
    }
    return Annotate(report.status(),
                    absl::StrCat(FailedCount(), " of ", trainings_.size(), " trainings gave no loss",
                                 first.empty() ? "" : " (the first: ", first, first.empty() ? "" : ")"));
  }
  TY_RETURN_IF_ERROR(report.status());
  report_ = *std::move(report);
  LogInfo("fitted ", report_->fit.runs.size(), " of ", trainings_.size(), " trainings", Summary(report_->fit));
  return absl::OkStatus();
}

absl::StatusOr<UnitResult> StudyJob::RunUnit() {
  TY_RETURN_IF_ERROR(FitAll());
  step_ = 1;
  UnitResult unit;
  unit.step = unit.total_steps = 1;
  unit.done = true;
  unit.metrics["children_done"] = static_cast<double>(trainings_.size());
  unit.metrics["children_failed"] = FailedCount();
  for (const scaling::RecipeFit& recipe : report_->fit.recipes) {
    const bool is_tokens = recipe.acts_on == scaling::ActsOn::kTokens;
    const scaling::Interval& interval = is_tokens ? recipe.tokens_interval : recipe.parameters_interval;
    unit.metrics["eff_" + recipe.name] = is_tokens ? recipe.eff.tokens : recipe.eff.parameters;
    if (std::isfinite(interval.low95)) {
      unit.metrics[absl::StrCat("eff_", recipe.name, "_width")] = interval.high95 - interval.low95;
    }
  }
  return unit;
}

void AddEfficiency(const std::string& name, double value, const scaling::Interval& interval, v1::JobResult* result) {
  (*result->mutable_values())[name] = value;
  if (!std::isfinite(interval.low95)) return;
  (*result->mutable_values())[name + "_low"] = interval.low95;
  (*result->mutable_values())[name + "_high"] = interval.high95;
}

absl::StatusOr<v1::JobResult> StudyJob::Finish() {
  TY_RETURN_IF_ERROR(FitAll());  // at once if the unit was this attempt's; else the outcomes are recorded
  context_->EnterSection("export");
  const scaling::StudyFit& fit = report_->fit;
  const std::string directory = JoinPath(context_->place().attempt_dir, "losses");
  const std::string text = scaling::FormatReport(*report_);
  TY_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(directory, "report.json"), text));

  v1::JobResult result;
  v1::Artifact& artifact = *result.add_artifacts();
  artifact.set_name("losses");
  artifact.set_path(directory);
  artifact.set_bytes(static_cast<int64_t>(text.size() + scaling::FormatRuns(Runs()).size()));
  (*result.mutable_documents())["report"] = text;
  auto& values = *result.mutable_values();
  for (const scaling::RecipeFit& recipe : fit.recipes) {
    if (recipe.acts_on == scaling::ActsOn::kTokens) {
      AddEfficiency("eff_" + recipe.name, recipe.eff.tokens, recipe.tokens_interval, &result);
    } else {
      AddEfficiency("eff_" + recipe.name, recipe.eff.parameters, recipe.parameters_interval, &result);
    }
    if (recipe.acts_on == scaling::ActsOn::kBoth) {
      AddEfficiency("eff_tokens_" + recipe.name, recipe.eff.tokens, recipe.tokens_interval, &result);
    }
  }
  const auto natural = scaling::NaturalParameters(fit.law);
  for (int k = 0; k < scaling::ParameterCount(fit.form); ++k) {
    const auto i = static_cast<size_t>(k);
    values[absl::StrCat("law_", scaling::LawParameterNames()[i])] = natural[i];
  }
  values["runs"] = static_cast<double>(fit.runs.size());
  values["excluded_runs"] = static_cast<double>(report_->excluded.size());
  values["fit_cost"] = fit.cost;
  if (fit.validation) values["held_out_error"] = fit.validation->mean_error;
  return result;
}

}  // namespace

std::unique_ptr<Job> MakeStudyJob(const spec::JobOptions& options) {
  return std::make_unique<StudyJob>(options);
}

}  // namespace trainyard::jobs
