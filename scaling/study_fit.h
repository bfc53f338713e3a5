// The whole evaluation of a scaling study: law, efficiencies, their uncertainty, and how well it predicts.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scaling/law_fit.h"
#include "scaling/run_table.h"

namespace trainyard::scaling {

struct StudyFitOptions {
  Objective objective;
  bool two_stage = true;     // the law from the baseline alone, then each recipe with the law fixed; false: all at once
  int bootstrap = 500;       // resamples; 0: no intervals
  uint64_t seed = 0;         // of the resamples
  bool validate = true;      // predict the largest N from the others
  std::optional<Law> start;  // of the search for the law, instead of the grid of starts
  // Asked now and then; true ends the fit with Cancelled. May be empty.
  std::function<bool()> should_stop;
};

// Percentiles of the bootstrap; NaN without one.
struct Interval {
  double low68 = NAN, high68 = NAN;  // 16th and 84th
  double low95 = NAN, high95 = NAN;  // 2.5th and 97.5th
};

struct RecipeFit {
  std::string name;
  ActsOn acts_on = ActsOn::kParameters;
  double bits = 0;  // 0: not known
  int runs = 0;
  Multipliers eff;
  Interval parameters_interval, tokens_interval;
  Multipliers joint;         // the same from a fit of law and efficiencies at once
  bool is_at_limit = false;  // at 0.005 or 2, the bounds of the fit
};

struct RunFit {
  StudyRun run;
  double predicted = 0;
  double residual = 0;             // ln loss - ln predicted
  std::optional<double> inverted;  // the effN that this run says by itself
};

// Fitted without the runs of the largest N, how far from these the prediction is.
struct Validation {
  double parameters = 0;
  int runs = 0;
  double mean_error = 0;  // of |ln L - ln Lhat|
  double max_error = 0;
};

struct StudyFit {
  Form form = Form::kOuterExponent;
  double huber_delta = 0;
  bool two_stage = true;
  int bootstrap = 0;
  Law law;
  std::array<Interval, kLawParameters> law_intervals;  // of A, alpha, B, beta, E, gamma: not of the logarithms
  double cost = 0;                                     // of the runs of the first stage, or of all if there is one
  double worst_residual = 0;                           // of the baseline's, in magnitude
  int starts = 0;
  int agreeing_starts = 0;
  int baseline_runs = 0;
  std::vector<RecipeFit> recipes;        // without the baseline, by name
  std::vector<RunFit> runs;              // sorted by recipe, parameters, tokens, seed
  std::optional<Validation> validation;  // nothing if the smaller sizes do not determine the law
  std::vector<std::string> notes;        // what a reader should know before using the numbers
};

// Does not depend on the order of `runs`. FailedPrecondition if the baseline's runs do not determine the law,
// InvalidArgument if a run is not positive and finite, Cancelled.
absl::StatusOr<StudyFit> FitStudy(std::vector<StudyRun> runs, const StudyFitOptions& options);

// A, alpha, B, beta, E, gamma.
std::array<double, kLawParameters> NaturalParameters(const Law& law);
const std::array<const char*, kLawParameters>& LawParameterNames();

}  // namespace trainyard::scaling
