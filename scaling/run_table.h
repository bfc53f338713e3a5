// Finished trainings as a table: what a fit is made from.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace trainyard::scaling {

// The recipe that efficiencies are relative to.
inline constexpr char kBaseline[] = "baseline";

// Which of a recipe's efficiencies are fitted: of compression in the forward pass effN, in the backward pass effD, of
// both both.
enum class ActsOn { kParameters, kTokens, kBoth };

struct StudyRun {
  std::string recipe;
  std::string name;       // of the size, for people
  double parameters = 0;  // N > 0
  double tokens = 0;      // D > 0
  double loss = 0;        // > 0, nats a token
  uint64_t seed = 0;
  ActsOn acts_on = ActsOn::kParameters;  // the same in all runs of a recipe; of no meaning for the baseline
  double bits = 0;  // of a weight, as the recipe computes with it; 0: not known. The same in all runs of a recipe
};

// Text with a line of column names, then one line a run; columns are separated by tabs. recipe, parameters, tokens and
// loss must be there; name, seed, acts_on (parameters, tokens, both, or - for the default) and bits may be. Lines that
// are empty or start with # are passed over. InvalidArgument names the line and the column.
absl::StatusOr<std::vector<StudyRun>> ParseRuns(absl::string_view text);

// The same with all columns; numbers so that ParseRuns returns them bit for bit.
std::string FormatRuns(const std::vector<StudyRun>& runs);

// "parameters".
std::string ActsOnName(ActsOn acts_on);

}  // namespace trainyard::scaling
