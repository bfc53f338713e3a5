#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/plot.h"
#include "client/study.h"
#include "scaling/budget.h"

namespace trainyard::client {
namespace {

using scaling::ActsOn;
using Rows = std::vector<std::vector<std::string>>;

std::string Short(double value) {
  return std::isfinite(value) ? absl::StrFormat("%.4g", value) : "-";
}

std::string Range(const scaling::Interval& interval) {
  if (!std::isfinite(interval.low95)) return "-";
  return absl::StrCat(Short(interval.low95), " .. ", Short(interval.high95));
}

Rows EfficiencyRows(const scaling::StudyReport& report) {
  Rows rows = {{"RECIPE", "RUNS", "OF", "EFF", "95 %", "ALL AT ONCE", "CAPACITY", "BITS", "EFF/BIT"}};
  for (const scaling::RecipeFit& recipe : report.fit.recipes) {
    const auto capacity = report.capacities.find(recipe.name);
    const bool has_bits = recipe.bits > 0 && recipe.acts_on != ActsOn::kTokens;
    if (recipe.acts_on != ActsOn::kTokens) {
      rows.push_back(
          {recipe.name, absl::StrCat(recipe.runs), "N", Short(recipe.eff.parameters), Range(recipe.parameters_interval),
           Short(recipe.joint.parameters), capacity == report.capacities.end() ? "-" : Short(capacity->second),
           has_bits ? Short(recipe.bits) : "-", has_bits ? Short(recipe.eff.parameters / recipe.bits) : "-"});
    }
    if (recipe.acts_on != ActsOn::kParameters) {
      rows.push_back({recipe.name, absl::StrCat(recipe.runs), "D", Short(recipe.eff.tokens),
                      Range(recipe.tokens_interval), Short(recipe.joint.tokens), "-", "-", "-"});
    }
  }
  return rows;
}

Rows LawRows(const scaling::StudyFit& fit) {
  Rows rows = {{"LAW", "VALUE", "95 %"}};
  const auto natural = NaturalParameters(fit.law);
  for (int k = 0; k < scaling::ParameterCount(fit.form); ++k) {
    const auto i = static_cast<size_t>(k);
    rows.push_back({scaling::LawParameterNames()[i], Short(natural[i]), Range(fit.law_intervals[i])});
  }
  return rows;
}

}  // namespace

std::string StudyTables(const scaling::StudyReport& report) {
  const scaling::StudyFit& fit = report.fit;
  std::string text;
  if (report.is_partial) {
    absl::StrAppend(&text, "Partial: ", fit.runs.size() + report.excluded.size(), " of ", report.trainings,
                    " trainings are done.\n\n");
  }
  absl::StrAppend(&text, fit.form == scaling::Form::kChinchilla
                             ? "L = A / (N effN)^alpha + B / (D effD)^beta + E"
                             : "L = (A / (N effN)^alpha + B / (D effD)^beta)^gamma + E");
  absl::StrAppendFormat(&text, "\n%d runs, Huber of ln L with delta %.3g, %s, %d resamples; cost %.6g\n\n",
                        fit.runs.size(), fit.huber_delta, fit.two_stage ? "baseline first" : "all at once",
                        fit.bootstrap, fit.cost);
  if (!fit.recipes.empty()) absl::StrAppend(&text, Table(EfficiencyRows(report)), "\n");
  absl::StrAppend(&text, Table(LawRows(fit)));
  absl::StrAppendFormat(&text, "\nThe worst of %d baseline runs is off by %.3g in ln L.\n", fit.baseline_runs,
                        fit.worst_residual);
  if (fit.validation) {
    absl::StrAppendFormat(
        &text, "N = %.4g predicted from smaller ones: off by %.3g in ln L, at most %.3g, in %d runs.\n",
        fit.validation->parameters, fit.validation->mean_error, fit.validation->max_error, fit.validation->runs);
  }
  if (!report.excluded.empty()) {
    Rows rows = {{"LEFT OUT", "SIZE", "TOKENS", "SEED", "LOSS AT LEAST", "WHY"}};
    for (const scaling::ExcludedRun& excluded : report.excluded) {
      rows.push_back({excluded.run.recipe, excluded.run.name, Short(excluded.run.tokens),
                      absl::StrCat(excluded.run.seed), excluded.loss_at_least > 0 ? Short(excluded.loss_at_least) : "-",
                      excluded.reason});
    }
    absl::StrAppend(&text, "\n", Table(rows), "The efficiency of a recipe with runs left out is an upper bound.\n");
  }
  if (!report.predictions.empty()) {
    Rows rows = {{"PREDICTED", "N", "D", "LOSS"}};
    for (const scaling::Prediction& prediction : report.predictions) {
      rows.push_back({prediction.recipe, Short(prediction.parameters), Short(prediction.tokens),
                      absl::StrFormat("%.4f", prediction.loss)});
    }
    absl::StrAppend(&text, "\n", Table(rows));
  }
  for (const std::string& note : fit.notes) absl::StrAppend(&text, "\nNote: ", note, "\n");
  return text;
}

std::string StudyPlots(const scaling::StudyReport& report, int columns) {
  std::set<std::string> recipes;
  std::vector<PlotPoint> residuals;
  for (const scaling::RunFit& run : report.fit.runs) {
    recipes.insert(run.run.recipe);
    residuals.push_back({std::log10(run.run.parameters), run.residual});
  }
  const int width = std::min(columns, 100);
  std::string text;
  for (const std::string& recipe : recipes) {
    std::vector<PlotPoint> losses;
    for (const scaling::RunFit& run : report.fit.runs) {
      if (run.run.recipe == recipe) losses.push_back({std::log10(run.run.parameters), run.run.loss});
    }
    absl::StrAppend(&text,
                    Plot(std::move(losses), {.title = absl::StrCat("mean loss of ", recipe, " over all D"),
                                             .x_label = "log10 N",
                                             .width = width,
                                             .height = 10}),
                    "\n");
  }
  absl::StrAppend(
      &text, Plot(std::move(residuals),
                  {.title = "mean residual of ln L over all runs", .x_label = "log10 N", .width = width, .height = 8}));
  return text;
}

std::string BudgetTable(const scaling::StudyFit& fit, double parameters, double tokens) {
  Rows rows = {{"BUDGET", "FORWARD", "BACKWARD", "STEP", "LOSS"}};
  const auto add = [&](const std::string& name, const scaling::Speedups& speedups, const scaling::Multipliers& eff) {
    rows.push_back({name, absl::StrCat(speedups.forward, "x"), absl::StrCat(speedups.backward, "x"),
                    absl::StrFormat("%.3gx", scaling::TrainingSpeedup(speedups)),
                    absl::StrFormat("%.5f", scaling::BudgetLoss(fit.law, parameters, tokens, speedups, eff))});
  };
  add(scaling::kBaseline, {}, {});
  for (const scaling::RecipeFit& recipe : fit.recipes) {
    add(recipe.name, {recipe.acts_on == ActsOn::kTokens ? 1.0 : 2.0, recipe.acts_on == ActsOn::kParameters ? 1.0 : 2.0},
        recipe.eff);
  }
  return Table(rows);
}

}  // namespace trainyard::client
