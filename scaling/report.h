// The report of a study as data: what a study job leaves and `trainyard study` prints.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scaling/study_fit.h"

namespace trainyard::scaling {

// A training that gave no loss to fit. Its recipe's efficiency is at most what is fitted: had it been counted, with the
// high loss of a run that diverged, the efficiency would be lower.
struct ExcludedRun {
  StudyRun run;  // without loss
  std::string reason;
  double loss_at_least = 0;  // what the law says of its recipe; 0 if nothing
};

struct Prediction {
  std::string recipe;
  double parameters = 0;
  double tokens = 0;
  double loss = 0;
};

struct StudyReport {
  bool is_partial = false;  // trainings are still under way
  int trainings = 0;        // of the whole study
  StudyFit fit;
  std::map<std::string, double> capacities;  // by recipe: effN that rho(GMSE) predicts, where it does
  std::vector<ExcludedRun> excluded;
  std::vector<Prediction> predictions;
};

// The losses that `fit` expects at a point, of the baseline and of each recipe.
std::vector<Prediction> Predict(const StudyFit& fit, double parameters, double tokens);

// JSON (docs/methods/scaling-laws.md); numbers that do not exist are null. ParseReport returns an equal report;
// InvalidArgument if the text is not one.
std::string FormatReport(const StudyReport& report);
absl::StatusOr<StudyReport> ParseReport(absl::string_view text);

// "chinchilla", "outer_exponent".
std::string FormName(Form form);

}  // namespace trainyard::scaling
