#include "scaling/law_fit.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scaling/golden_section.h"
#include "scaling/huber.h"

namespace trainyard::scaling {
namespace {

constexpr int kScreeningIterations = 40;
constexpr size_t kPolished = 24;  // starts that are followed to the end
constexpr int kPolishIterations = 600;
constexpr int kLastIterations = 5000;
constexpr int kRefineIterations = 80;
constexpr double kAgreement = 1e-9;

const double kLogLowestEfficiency = std::log(kLowestEfficiency);
const double kLogHighestEfficiency = std::log(kHighestEfficiency);

struct Center {
  double log_parameters = 0;
  double log_tokens = 0;
};

Center CenterOf(const std::vector<Observation>& runs) {
  Center center;
  double weight = 0;
  for (const Observation& run : runs) {
    center.log_parameters += run.weight * run.log_parameters;
    center.log_tokens += run.weight * run.log_tokens;
    weight += run.weight;
  }
  if (weight > 0) {
    center.log_parameters /= weight;
    center.log_tokens /= weight;
  }
  return center;
}

std::vector<double> ToVector(const Law& law, Form form, const Center& center) {
  std::vector<double> x = {law.a - law.alpha * center.log_parameters, law.alpha, law.b - law.beta * center.log_tokens,
                           law.beta, law.e};
  if (form == Form::kOuterExponent) x.push_back(law.gamma);
  return x;
}

Law Centered(const std::vector<double>& x, Form form) {
  return {x[0], x[1], x[2], x[3], x[4], form == Form::kOuterExponent ? x[5] : 1};
}

Law ToLaw(const std::vector<double>& x, Form form, const Center& center) {
  Law law = Centered(x, form);
  law.a += law.alpha * center.log_parameters;
  law.b += law.beta * center.log_tokens;
  return law;
}

// A run and the places of its method's ln effN and ln effD in the vector of parameters; -1: it is 0.
struct Term {
  Observation run;
  int parameters_at = -1;
  int tokens_at = -1;
};

// Parameters: those of the law, centered, then the efficiencies.
HuberProblem MakeProblem(std::vector<Term> terms, const Objective& objective, const Center& center,
                         int efficiency_count) {
  HuberProblem problem;
  const int law_count = ParameterCount(objective.form);
  problem.residual_count = static_cast<int>(terms.size());
  problem.parameter_count = law_count + efficiency_count;
  problem.delta = objective.huber_delta;
  problem.lowest = {-100, 1e-6, -100, 1e-6, -40, 1e-3};
  problem.highest = {200, 20, 200, 20, 10, 20};
  problem.lowest.resize(static_cast<size_t>(law_count));
  problem.highest.resize(static_cast<size_t>(law_count));
  problem.lowest.resize(static_cast<size_t>(problem.parameter_count), kLogLowestEfficiency);
  problem.highest.resize(static_cast<size_t>(problem.parameter_count), kLogHighestEfficiency);
  for (const Term& term : terms) problem.weights.push_back(term.run.weight);
  problem.evaluate = [terms = std::move(terms), form = objective.form, center, law_count,
                      count = static_cast<size_t>(problem.parameter_count)](
                         const std::vector<double>& x, std::vector<double>* residuals, std::vector<double>* jacobian) {
    const Law law = Centered(x, form);
    residuals->resize(terms.size());
    if (jacobian != nullptr) jacobian->assign(terms.size() * count, 0);
    Gradient gradient;
    for (size_t i = 0; i < terms.size(); ++i) {
      const Term& term = terms[i];
      double log_parameters = term.run.log_parameters - center.log_parameters;
      double log_tokens = term.run.log_tokens - center.log_tokens;
      if (term.parameters_at >= 0) log_parameters += x[static_cast<size_t>(term.parameters_at)];
      if (term.tokens_at >= 0) log_tokens += x[static_cast<size_t>(term.tokens_at)];
      (*residuals)[i] =
          LogLoss(law, log_parameters, log_tokens, jacobian == nullptr ? nullptr : &gradient) - term.run.log_loss;
      if (jacobian == nullptr) continue;
      double* const row = &(*jacobian)[i * count];
      std::copy(gradient.law.begin(), gradient.law.begin() + law_count, row);
      if (term.parameters_at >= 0) row[term.parameters_at] = gradient.log_eff_parameters;
      if (term.tokens_at >= 0) row[term.tokens_at] = gradient.log_eff_tokens;
    }
  };
  return problem;
}

HuberProblem LawProblem(const std::vector<Observation>& runs, const Objective& objective, const Center& center) {
  std::vector<Term> terms;
  for (const Observation& run : runs) {
    if (run.weight > 0) terms.push_back({run, -1, -1});
  }
  return MakeProblem(std::move(terms), objective, center, 0);
}

// The grids of QuEST's and Quartet's fits, thinned out for F1, whose own has 22,500 points.
std::vector<Law> Starts(Form form) {
  const bool is_outer = form == Form::kOuterExponent;
  const std::vector<double> offsets = is_outer ? std::vector<double>{0, 5, 10} : std::vector<double>{5, 15, 25};
  const std::vector<double> exponents = {0, 0.5, 1};
  const std::vector<double> floors = is_outer ? std::vector<double>{0, 0.5} : std::vector<double>{-1, 0, 0.5};
  const std::vector<double> gammas = is_outer ? exponents : std::vector<double>{1};
  std::vector<Law> starts;
  for (const double a : offsets) {
    for (const double alpha : exponents) {
      for (const double b : offsets) {
        for (const double beta : exponents) {
          for (const double e : floors) {
            for (const double gamma : gammas) starts.push_back({a, alpha, b, beta, e, gamma});
          }
        }
      }
    }
  }
  return starts;
}

double CostOf(const Law& law, const std::vector<Observation>& runs, const Multipliers& multipliers, double delta) {
  const double log_eff_parameters = std::log(multipliers.parameters);
  const double log_eff_tokens = std::log(multipliers.tokens);
  double cost = 0;
  for (const Observation& run : runs) {
    if (run.weight == 0) continue;
    const double predicted = LogLoss(law, run.log_parameters + log_eff_parameters, run.log_tokens + log_eff_tokens);
    cost += run.weight * Huber(predicted - run.log_loss, delta);
  }
  return cost;
}

MultiplierFit FitOneMultiplier(const Law& law, const std::vector<Observation>& runs, ActsOn acts_on, double delta) {
  const auto multipliers = [&](double log_eff) {
    const double eff = std::exp(log_eff);
    return acts_on == ActsOn::kTokens ? Multipliers{1, eff} : Multipliers{eff, 1};
  };
  const double log_eff = MinimizeOnInterval([&](double x) { return CostOf(law, runs, multipliers(x), delta); },
                                            kLogLowestEfficiency, kLogHighestEfficiency);
  MultiplierFit fit;
  fit.multipliers = multipliers(log_eff);
  fit.cost = CostOf(law, runs, fit.multipliers, delta);
  fit.is_at_limit = log_eff - kLogLowestEfficiency < 1e-6 || kLogHighestEfficiency - log_eff < 1e-6;
  return fit;
}

MultiplierFit FitBothMultipliers(const Law& law, const std::vector<Observation>& runs, double delta) {
  HuberProblem problem;
  problem.residual_count = static_cast<int>(runs.size());
  problem.parameter_count = 2;
  problem.delta = delta;
  problem.lowest.assign(2, kLogLowestEfficiency);
  problem.highest.assign(2, kLogHighestEfficiency);
  for (const Observation& run : runs) problem.weights.push_back(run.weight);
  problem.evaluate = [&](const std::vector<double>& x, std::vector<double>* residuals, std::vector<double>* jacobian) {
    residuals->resize(runs.size());
    if (jacobian != nullptr) jacobian->resize(runs.size() * 2);
    Gradient gradient;
    for (size_t i = 0; i < runs.size(); ++i) {
      (*residuals)[i] =
          LogLoss(law, runs[i].log_parameters + x[0], runs[i].log_tokens + x[1], &gradient) - runs[i].log_loss;
      if (jacobian == nullptr) continue;
      (*jacobian)[2 * i] = gradient.log_eff_parameters;
      (*jacobian)[2 * i + 1] = gradient.log_eff_tokens;
    }
  };
  Minimum best;
  best.cost = INFINITY;
  for (const double parameters : {0.5, 1.0}) {
    for (const double tokens : {0.5, 1.0}) {
      Minimum minimum = MinimizeHuber(problem, {std::log(parameters), std::log(tokens)}, kPolishIterations);
      if (minimum.cost < best.cost) best = std::move(minimum);
    }
  }
  MultiplierFit fit;
  if (best.x.empty()) return fit;
  fit.multipliers = {std::exp(best.x[0]), std::exp(best.x[1])};
  fit.cost = best.cost;
  for (const double x : best.x) {
    fit.is_at_limit |= x - kLogLowestEfficiency < 1e-6 || kLogHighestEfficiency - x < 1e-6;
  }
  return fit;
}

}  // namespace

int CountPoints(const std::vector<Observation>& runs) {
  std::set<std::pair<double, double>> points;
  for (const Observation& run : runs) {
    if (run.weight > 0) points.emplace(run.log_parameters, run.log_tokens);
  }
  return static_cast<int>(points.size());
}

absl::StatusOr<LawFit> FitLaw(const std::vector<Observation>& runs, const Objective& objective,
                              std::vector<Law>* alternatives, const Law* start) {
  for (const Observation& run : runs) {
    if (!std::isfinite(run.log_parameters) || !std::isfinite(run.log_tokens) || !std::isfinite(run.log_loss)) {
      return absl::InvalidArgumentError("parameters, tokens and losses must be finite and above 0");
    }
  }
  const int points = CountPoints(runs);
  if (points < ParameterCount(objective.form)) {
    return absl::FailedPreconditionError(absl::StrCat("the baseline has ", points,
                                                      " different pairs of parameters and tokens; the law has ",
                                                      ParameterCount(objective.form), " numbers to fit"));
  }
  const Center center = CenterOf(runs);
  const HuberProblem problem = LawProblem(runs, objective, center);
  std::vector<Minimum> minima;
  for (const Law& first : start != nullptr ? std::vector<Law>{*start} : Starts(objective.form)) {
    minima.push_back(MinimizeHuber(problem, ToVector(first, objective.form, center), kScreeningIterations));
  }
  LawFit fit;
  fit.starts = static_cast<int>(minima.size());
  const auto is_better = [](const Minimum& x, const Minimum& y) { return x.cost < y.cost; };
  std::stable_sort(minima.begin(), minima.end(), is_better);
  minima.resize(std::min(minima.size(), kPolished));
  for (Minimum& minimum : minima) minimum = MinimizeHuber(problem, std::move(minimum.x), kPolishIterations);
  std::stable_sort(minima.begin(), minima.end(), is_better);
  minima[0] = MinimizeHuber(problem, std::move(minima[0].x), kLastIterations);
  if (!std::isfinite(minima[0].cost)) return absl::InternalError("no start of the fit has a finite cost");
  fit.law = ToLaw(minima[0].x, objective.form, center);
  fit.cost = minima[0].cost;
  for (const Minimum& minimum : minima) fit.agreeing += minimum.cost <= fit.cost + kAgreement ? 1 : 0;
  if (alternatives != nullptr) {
    alternatives->clear();
    for (const Minimum& minimum : minima) alternatives->push_back(ToLaw(minimum.x, objective.form, center));
  }
  return fit;
}

Law RefineLaw(const Law& start, const std::vector<Observation>& runs, const Objective& objective) {
  const Center center = CenterOf(runs);
  const Minimum minimum = MinimizeHuber(LawProblem(runs, objective, center), ToVector(start, objective.form, center),
                                        kRefineIterations, 1e-8);
  return ToLaw(minimum.x, objective.form, center);
}

MultiplierFit FitMultipliers(const Law& law, const std::vector<Observation>& runs, ActsOn acts_on,
                             const Objective& objective) {
  if (acts_on == ActsOn::kBoth) return FitBothMultipliers(law, runs, objective.huber_delta);
  return FitOneMultiplier(law, runs, acts_on, objective.huber_delta);
}

JointFit FitJointly(const std::vector<Law>& starts, const std::vector<Observation>& baseline,
                    const std::vector<MethodRuns>& methods, const Objective& objective, int max_iterations) {
  const Center center = CenterOf(baseline);
  const int law_count = ParameterCount(objective.form);
  std::vector<Term> terms;
  for (const Observation& run : baseline) terms.push_back({run, -1, -1});
  int next = law_count;
  for (const MethodRuns& method : methods) {
    const int parameters_at = method.acts_on == ActsOn::kTokens ? -1 : next++;
    const int tokens_at = method.acts_on == ActsOn::kParameters ? -1 : next++;
    for (const Observation& run : method.runs) terms.push_back({run, parameters_at, tokens_at});
  }
  const HuberProblem problem = MakeProblem(std::move(terms), objective, center, next - law_count);

  Minimum best;
  best.cost = INFINITY;
  for (const Law& start : starts) {
    std::vector<double> x = ToVector(start, objective.form, center);
    for (const MethodRuns& method : methods) {
      const Multipliers first = FitMultipliers(start, method.runs, method.acts_on, objective).multipliers;
      if (method.acts_on != ActsOn::kTokens) x.push_back(std::log(first.parameters));
      if (method.acts_on != ActsOn::kParameters) x.push_back(std::log(first.tokens));
    }
    const int iterations = starts.size() > 1 ? std::min(max_iterations, kScreeningIterations) : max_iterations;
    Minimum minimum = MinimizeHuber(problem, std::move(x), iterations);
    if (minimum.cost < best.cost) best = std::move(minimum);
  }
  JointFit fit;
  if (best.x.empty()) return fit;
  if (starts.size() > 1) best = MinimizeHuber(problem, std::move(best.x), max_iterations);
  fit.law = ToLaw(best.x, objective.form, center);
  fit.cost = best.cost;
  size_t at = static_cast<size_t>(law_count);
  for (const MethodRuns& method : methods) {
    Multipliers multipliers;
    if (method.acts_on != ActsOn::kTokens) multipliers.parameters = std::exp(best.x[at++]);
    if (method.acts_on != ActsOn::kParameters) multipliers.tokens = std::exp(best.x[at++]);
    fit.multipliers.push_back(multipliers);
  }
  return fit;
}

}  // namespace trainyard::scaling
