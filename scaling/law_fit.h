// Fits of a law and of efficiencies to losses, as single steps; study_fit.h puts them together.
//
// All minimise sum_i w_i Huber_delta(ln L_i - ln Lhat_i) (huber.h). Fits work with ln N and ln D less their means,
// which makes them insensitive to units: all N times c changes A by c^alpha and no efficiency.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "scaling/law.h"
#include "scaling/run_table.h"

namespace trainyard::scaling {

// Logarithms of one run's N, D and loss.
struct Observation {
  double log_parameters = 0;
  double log_tokens = 0;
  double log_loss = 0;
  double weight = 1;  // how often the run counts; a bootstrap's resample has 0, 1, 2 ...
};

struct Objective {
  Form form = Form::kOuterExponent;
  double huber_delta = 1e-4;  // > 0; infinity: least squares of ln L
};

struct LawFit {
  Law law;
  double cost = 0;
  int starts = 0;    // points that the search began from, at least 50 unless one was given
  int agreeing = 0;  // of the best of them, those that ended within 1e-9 of the best cost
};

// The law of uncompressed runs, searched from a grid of starts. FailedPrecondition if there are fewer different (N, D)
// than parameters; InvalidArgument if a number is not finite. Deterministic. `alternatives`, if given, receives the
// ends of the best starts, best first. With a `start` the search begins there only.
absl::StatusOr<LawFit> FitLaw(const std::vector<Observation>& runs, const Objective& objective,
                              std::vector<Law>* alternatives = nullptr, const Law* start = nullptr);

// The same from one start, for data close to those that `start` was fitted to.
Law RefineLaw(const Law& start, const std::vector<Observation>& runs, const Objective& objective);

// Different (N, D) of positive weight.
int CountPoints(const std::vector<Observation>& runs);

// Bounds of a fitted efficiency.
inline constexpr double kLowestEfficiency = 0.005;
inline constexpr double kHighestEfficiency = 2;

struct MultiplierFit {
  Multipliers multipliers;
  double cost = 0;
  bool is_at_limit = false;  // at one of the bounds, so that the data want to go on
};

// The efficiencies of one method with the law fixed: golden section on ln eff, or Levenberg-Marquardt for both at once.
MultiplierFit FitMultipliers(const Law& law, const std::vector<Observation>& runs, ActsOn acts_on,
                             const Objective& objective);

struct MethodRuns {
  ActsOn acts_on = ActsOn::kParameters;
  std::vector<Observation> runs;
};
struct JointFit {
  Law law;
  std::vector<Multipliers> multipliers;  // one a method
  double cost = 0;
};

// Law and efficiencies at once, from each of `starts` with the efficiencies that fit it.
JointFit FitJointly(const std::vector<Law>& starts, const std::vector<Observation>& baseline,
                    const std::vector<MethodRuns>& methods, const Objective& objective, int max_iterations);

}  // namespace trainyard::scaling
