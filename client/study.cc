#include "client/study.h"

#include <CLI/CLI.hpp>
#include <limits>
#include <ostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/follow.h"

namespace trainyard::client {
namespace {

struct StudyFitFlags {
  std::string file;
  std::string form = "outer_exponent";
  double huber_delta = 0;  // 0: the form's default; infinity: least squares
  bool joint = false;
  int bootstrap = 500;
  uint64_t seed = 0;
  std::vector<std::string> predict;
  std::string budget;
  bool plot = false;
};

struct StudyReportFlags {
  std::string job;
  std::string budget;
  bool plot = false;
};

struct Point {
  double parameters = 0;
  double tokens = 0;
};

absl::StatusOr<Point> ParsePoint(const char* flag, const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  Point point;
  if (parts.size() != 2 || !absl::SimpleAtod(parts[0], &point.parameters) ||
      !absl::SimpleAtod(parts[1], &point.tokens) || !(point.parameters >= 1 && point.parameters <= 1e15) ||
      !(point.tokens >= 1 && point.tokens <= 1e18)) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " ", text, ": not PARAMETERS:TOKENS such as 1e9:1e11, in [1, 1e15] and [1, 1e18]"));
  }
  return point;
}

absl::StatusOr<scaling::StudyReport> Fit(const StudyFitFlags& flags, const Interrupt* interrupt) {
  TY_ASSIGN_OR_RETURN(const std::string text, ReadFile(flags.file));
  auto runs = scaling::ParseRuns(text);
  if (!runs.ok()) return Annotate(runs.status(), flags.file);
  scaling::StudyFitOptions options;
  const bool is_chinchilla = flags.form == "chinchilla";
  options.objective.form = is_chinchilla ? scaling::Form::kChinchilla : scaling::Form::kOuterExponent;
  options.objective.huber_delta = flags.huber_delta > 0 ? flags.huber_delta : is_chinchilla ? 1e-3 : 1e-4;
  options.two_stage = !flags.joint;
  options.bootstrap = flags.bootstrap;
  options.seed = flags.seed;
  if (interrupt != nullptr) options.should_stop = [interrupt] { return interrupt->triggered(); };
  scaling::StudyReport report;
  report.trainings = static_cast<int>(runs->size());
  TY_ASSIGN_OR_RETURN(report.fit, scaling::FitStudy(*std::move(runs), options));
  for (const std::string& text_of_point : flags.predict) {
    TY_ASSIGN_OR_RETURN(const Point point, ParsePoint("--predict", text_of_point));
    for (scaling::Prediction& prediction : scaling::Predict(report.fit, point.parameters, point.tokens)) {
      report.predictions.push_back(std::move(prediction));
    }
  }
  return report;
}

int Show(const scaling::StudyReport& report, const std::string& budget, bool plots, Context& context) {
  if (context.settings.output == OutputFormat::kJson) {
    context.out() << scaling::FormatReport(report);
    return kExitOk;
  }
  context.out() << StudyTables(report);
  if (!budget.empty()) {
    const auto point = ParsePoint("--budget", budget);
    if (!point.ok()) return Fail(context, point.status());
    context.out() << "\n" << BudgetTable(report.fit, point->parameters, point->tokens);
  }
  if (plots) context.out() << "\n" << StudyPlots(report, context.env.columns);
  return kExitOk;
}

int RunStudyFit(const StudyFitFlags& flags, Context& context) {
  const auto report = Fit(flags, context.env.interrupt);
  if (!report.ok()) return Fail(context, report.status());
  return Show(*report, flags.budget, flags.plot, context);
}

int RunStudyReport(const StudyReportFlags& flags, Context& context) {
  const auto job = GetJob(context, flags.job);
  if (!job.ok()) return Fail(context, job.status());
  const auto document = job->result().documents().find("report");
  if (job->kind() != "study" || document == job->result().documents().end()) {
    return Fail(context,
                absl::FailedPreconditionError(absl::StrCat("job ", job->name(), " has no report of a study: it is a ",
                                                           job->kind(), " job and ", StateName(job->state()))));
  }
  const auto report = scaling::ParseReport(document->second);
  if (!report.ok()) return Fail(context, report.status());
  return Show(*report, flags.budget, flags.plot, context);
}

}  // namespace

void AddStudyCommand(CLI::App& app, const SelectCommand& select) {
  CLI::App* study = app.add_subcommand("study", "Scaling laws: fit a table of runs, or show what a study job found");
  study->fallthrough();
  study->require_subcommand(1);

  auto fit = std::make_shared<StudyFitFlags>();
  CLI::App* command = study->add_subcommand("fit", "Fit a table of runs; no service is needed");
  command->fallthrough();
  command->add_option("runs", fit->file, "Table with columns recipe, parameters, tokens, loss, separated by tabs")
      ->required();
  command->add_option("--form", fit->form, "Of the law: outer_exponent or chinchilla")
      ->check(CLI::IsMember({"outer_exponent", "chinchilla"}))
      ->capture_default_str();
  command->add_option("--huber-delta", fit->huber_delta, "Residuals of ln L beyond it count linearly [1e-4; 1e-3]")
      ->check(CLI::PositiveNumber);
  command->add_flag("--all-at-once", fit->joint, "Law and efficiencies together, not the baseline first");
  command->add_option("--bootstrap", fit->bootstrap, "Resamples for intervals; 0: none")
      ->check(CLI::Range(0, 10'000))
      ->capture_default_str();
  command->add_option("--seed", fit->seed, "Of the resamples")->capture_default_str();
  command->add_option("--predict", fit->predict, "PARAMETERS:TOKENS to predict losses for")->allow_extra_args(false);
  command->add_option("--budget", fit->budget,
                      "PARAMETERS:TOKENS that the reference affords: what each recipe makes of it");
  command->add_flag("--plot", fit->plot, "Draw losses and residuals");
  command->callback([fit, select] {
    select([fit](Context& context) { return RunStudyFit(*fit, context); }, /*needs_server=*/false);
  });

  auto report = std::make_shared<StudyReportFlags>();
  command = study->add_subcommand("report", "Show the report of a study job");
  command->fallthrough();
  command->add_option("job", report->job, "Name or uid")->required();
  command->add_option("--budget", report->budget, "As for fit");
  command->add_flag("--plot", report->plot, "Draw losses and residuals");
  command->callback([report, select] {
    select([report](Context& context) { return RunStudyReport(*report, context); }, /*needs_server=*/true);
  });
}

}  // namespace trainyard::client
