#include "scaling/study_fit.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "scaling/huber.h"
#include "scaling/resample.h"

namespace trainyard::scaling {
namespace {

constexpr int kLeastAgreeing = 3;
constexpr int kJointIterations = 2000;
constexpr int kJointResampleIterations = 60;
constexpr int kStopCheckInterval = 8;

Observation Observe(const StudyRun& run) {
  return {std::log(run.parameters), std::log(run.tokens), std::log(run.loss), 1};
}

struct Groups {
  std::vector<Observation> baseline;
  std::vector<std::string> names;  // of the methods, sorted
  std::vector<MethodRuns> methods;
};

Groups GroupRuns(const std::vector<StudyRun>& runs) {
  Groups groups;
  std::map<std::string, MethodRuns> methods;
  for (const StudyRun& run : runs) {
    if (run.recipe == kBaseline) {
      groups.baseline.push_back(Observe(run));
    } else {
      MethodRuns& method = methods[run.recipe];
      method.acts_on = run.acts_on;
      method.runs.push_back(Observe(run));
    }
  }
  for (auto& [name, method] : methods) {
    groups.names.push_back(name);
    groups.methods.push_back(std::move(method));
  }
  return groups;
}

// A law and what each method makes of N and D.
struct Estimate {
  Law law;
  std::vector<Multipliers> eff;
};

struct PointEstimate {
  Estimate estimate;
  std::vector<Multipliers> joint;
  std::vector<bool> is_at_limit;
  LawFit base;
};

absl::StatusOr<PointEstimate> FitPoint(const Groups& groups, const StudyFitOptions& options) {
  PointEstimate point;
  std::vector<Law> alternatives;
  const Law* const start = options.start ? &*options.start : nullptr;
  TY_ASSIGN_OR_RETURN(point.base, FitLaw(groups.baseline, options.objective, &alternatives, start));
  point.estimate.law = point.base.law;
  for (const MethodRuns& method : groups.methods) {
    const MultiplierFit fit = FitMultipliers(point.base.law, method.runs, method.acts_on, options.objective);
    point.estimate.eff.push_back(fit.multipliers);
    point.is_at_limit.push_back(fit.is_at_limit);
  }
  if (options.two_stage) alternatives.resize(1);
  const JointFit joint = FitJointly(alternatives, groups.baseline, groups.methods, options.objective, kJointIterations);
  point.joint = joint.multipliers;
  if (!options.two_stage) point.estimate = {joint.law, joint.multipliers};
  return point;
}

Estimate FitResample(const Groups& groups, const Estimate& start, const StudyFitOptions& options) {
  if (!options.two_stage) {
    const JointFit joint =
        FitJointly({start.law}, groups.baseline, groups.methods, options.objective, kJointResampleIterations);
    return {joint.law, joint.multipliers};
  }
  Estimate estimate;
  estimate.law = RefineLaw(start.law, groups.baseline, options.objective);
  for (const MethodRuns& method : groups.methods) {
    estimate.eff.push_back(FitMultipliers(estimate.law, method.runs, method.acts_on, options.objective).multipliers);
  }
  return estimate;
}

Interval IntervalOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto percentile = [&](double percent) {
    const double place = percent / 100 * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(place);
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - std::floor(place)) * (values[above] - values[below]);
  };
  return {percentile(16), percentile(84), percentile(2.5), percentile(97.5)};
}

absl::Status Bootstrap(const Groups& groups, const Estimate& point, const StudyFitOptions& options, StudyFit* fit) {
  std::array<std::vector<double>, kLawParameters> law_values;
  std::vector<std::vector<double>> parameters(groups.methods.size()), tokens(groups.methods.size());
  const int needed = ParameterCount(options.objective.form);
  for (int i = 0; i < options.bootstrap; ++i) {
    if (i % kStopCheckInterval == 0 && options.should_stop && options.should_stop()) {
      return absl::CancelledError("asked to stop during the bootstrap");
    }
    Groups sample = groups;
    Resample(options.seed, i, 0, needed, &sample.baseline);
    for (size_t m = 0; m < sample.methods.size(); ++m) {
      Resample(options.seed, i, static_cast<int>(m) + 1, 1, &sample.methods[m].runs);
    }
    const Estimate estimate = FitResample(sample, point, options);
    const auto natural = NaturalParameters(estimate.law);
    for (size_t k = 0; k < natural.size(); ++k) law_values[k].push_back(natural[k]);
    for (size_t m = 0; m < estimate.eff.size(); ++m) {
      parameters[m].push_back(estimate.eff[m].parameters);
      tokens[m].push_back(estimate.eff[m].tokens);
    }
  }
  for (size_t k = 0; k < law_values.size(); ++k) fit->law_intervals[k] = IntervalOf(std::move(law_values[k]));
  for (size_t m = 0; m < fit->recipes.size(); ++m) {
    fit->recipes[m].parameters_interval = IntervalOf(std::move(parameters[m]));
    fit->recipes[m].tokens_interval = IntervalOf(std::move(tokens[m]));
  }
  return absl::OkStatus();
}

Multipliers EffOf(const StudyFit& fit, const std::string& recipe) {
  for (const RecipeFit& known : fit.recipes) {
    if (known.name == recipe) return known.eff;
  }
  return {};
}

std::optional<Validation> Validate(const std::vector<StudyRun>& runs, const StudyFitOptions& options) {
  Validation validation;
  for (const StudyRun& run : runs) validation.parameters = std::max(validation.parameters, run.parameters);
  std::vector<StudyRun> smaller;
  std::set<std::string> recipes = {kBaseline};
  for (const StudyRun& run : runs) {
    if (run.parameters == validation.parameters) continue;
    smaller.push_back(run);
    recipes.insert(run.recipe);
  }
  const Groups groups = GroupRuns(smaller);
  const absl::StatusOr<PointEstimate> point = FitPoint(groups, options);
  if (!point.ok()) return std::nullopt;  // too few runs
  for (const StudyRun& run : runs) {
    if (run.parameters != validation.parameters || recipes.count(run.recipe) == 0) continue;
    Multipliers eff;
    for (size_t m = 0; m < groups.names.size(); ++m) {
      if (groups.names[m] == run.recipe) eff = point->estimate.eff[m];
    }
    const double predicted = Loss(point->estimate.law, run.parameters, run.tokens, eff);
    const double error = std::abs(std::log(run.loss) - std::log(predicted));
    validation.mean_error += error;
    validation.max_error = std::max(validation.max_error, error);
    ++validation.runs;
  }
  if (validation.runs == 0) return std::nullopt;
  validation.mean_error /= validation.runs;
  return validation;
}

void AddNotes(const std::vector<StudyRun>& runs, StudyFit* fit) {
  if (fit->starts > kLeastAgreeing && fit->agreeing_starts < kLeastAgreeing) {
    fit->notes.push_back(absl::StrCat("Only ", fit->agreeing_starts, " of ", fit->starts,
                                      " starts reached the best fit: the law is poorly determined."));
  }
  double lowest = INFINITY, highest = 0;
  std::set<double> ratios;
  for (const StudyRun& run : runs) {
    if (run.recipe != kBaseline) continue;
    const double ratio = run.tokens / run.parameters;
    lowest = std::min(lowest, ratio);
    highest = std::max(highest, ratio);
  }
  if (highest < 4 * lowest) {
    fit->notes.push_back(absl::StrFormat(
        "The baseline's tokens per parameter span %.3g to %.3g: too little to tell the terms of N, D and E apart. "
        "Efficiencies are of use, A, B and E are not.",
        lowest, highest));
  }
  for (const RecipeFit& recipe : fit->recipes) {
    if (recipe.is_at_limit) {
      fit->notes.push_back(
          absl::StrCat(recipe.name, ": the efficiency is at a bound of the fit; the data do not determine it."));
    }
  }
}

}  // namespace

std::array<double, kLawParameters> NaturalParameters(const Law& law) {
  return {std::exp(law.a), law.alpha, std::exp(law.b), law.beta, std::exp(law.e), law.gamma};
}

const std::array<const char*, kLawParameters>& LawParameterNames() {
  static const std::array<const char*, kLawParameters> kNames = {"A", "alpha", "B", "beta", "E", "gamma"};
  return kNames;
}

absl::StatusOr<StudyFit> FitStudy(std::vector<StudyRun> runs, const StudyFitOptions& options) {
  for (const StudyRun& run : runs) {
    for (const double value : {run.parameters, run.tokens, run.loss}) {
      if (!(value > 0) || !std::isfinite(value)) {
        return absl::InvalidArgumentError(absl::StrCat("a run of ", run.recipe, " has parameters ", run.parameters,
                                                       ", tokens ", run.tokens, ", loss ", run.loss,
                                                       ": all must be finite and above 0"));
      }
    }
  }
  std::sort(runs.begin(), runs.end(), [](const StudyRun& x, const StudyRun& y) {
    return std::tie(x.recipe, x.parameters, x.tokens, x.seed, x.loss, x.name) <
           std::tie(y.recipe, y.parameters, y.tokens, y.seed, y.loss, y.name);
  });
  const Groups groups = GroupRuns(runs);
  TY_ASSIGN_OR_RETURN(const PointEstimate point, FitPoint(groups, options));

  StudyFit fit;
  fit.form = options.objective.form;
  fit.huber_delta = options.objective.huber_delta;
  fit.two_stage = options.two_stage;
  fit.bootstrap = options.bootstrap;
  fit.law = point.estimate.law;
  fit.cost = point.base.cost;
  fit.starts = point.base.starts;
  fit.agreeing_starts = point.base.agreeing;
  fit.baseline_runs = static_cast<int>(groups.baseline.size());
  std::map<std::string, double> bits;
  for (const StudyRun& run : runs) bits[run.recipe] = run.bits;
  for (size_t m = 0; m < groups.methods.size(); ++m) {
    RecipeFit recipe;
    recipe.name = groups.names[m];
    recipe.acts_on = groups.methods[m].acts_on;
    recipe.bits = bits[recipe.name];
    recipe.runs = static_cast<int>(groups.methods[m].runs.size());
    recipe.eff = point.estimate.eff[m];
    recipe.joint = point.joint[m];
    recipe.is_at_limit = point.is_at_limit[m];
    fit.recipes.push_back(std::move(recipe));
  }
  if (options.bootstrap > 0) TY_RETURN_IF_ERROR(Bootstrap(groups, point.estimate, options, &fit));

  if (!options.two_stage) fit.cost = 0;
  for (const StudyRun& run : runs) {
    RunFit row;
    row.run = run;
    row.predicted = Loss(fit.law, run.parameters, run.tokens, EffOf(fit, run.recipe));
    row.residual = std::log(run.loss) - std::log(row.predicted);
    row.inverted = InvertForParameters(fit.law, run.parameters, run.tokens, run.loss);
    if (run.recipe == kBaseline) fit.worst_residual = std::max(fit.worst_residual, std::abs(row.residual));
    if (!options.two_stage) fit.cost += Huber(row.residual, fit.huber_delta);
    fit.runs.push_back(std::move(row));
  }
  if (options.validate) {
    if (options.should_stop && options.should_stop()) return absl::CancelledError("asked to stop during the fit");
    fit.validation = Validate(runs, options);
  }
  AddNotes(runs, &fit);
  return fit;
}

}  // namespace trainyard::scaling
