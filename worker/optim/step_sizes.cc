#include "worker/optim/step_sizes.h"

#include <cmath>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace trainyard::optim {

void StepSizes::Reset() {
  sum_ = drift_ = 0;
  eta_ = gamma_ = options_.lr_scale;
}

void StepSizes::Advance(double term) {
  switch (options_.lr_rule) {
    case spec::StepRule::kBase:
      sum_ += term;
      eta_ = gamma_ = options_.lr_scale / std::sqrt(1.0 + sum_);
      break;
    case spec::StepRule::kSeparated:
      // The sums still end one step earlier, as the rule wants.
      gamma_ = options_.lr_scale * std::pow(1.0 + sum_, options_.q_hat - 0.5);
      eta_ = options_.lr_scale / std::sqrt(1.0 + sum_ + drift_);
      sum_ += term;
      break;
  }
}

std::string StepSizes::Text() const {
  return absl::StrFormat("%a %a %a %a", sum_, drift_, eta_, gamma_);
}

absl::Status StepSizes::Restore(const std::string& text) {
  std::vector<double> numbers;
  for (absl::string_view part : absl::StrSplit(text, ' ')) {
    const std::string word(part);
    char* end = nullptr;
    numbers.push_back(std::strtod(word.c_str(), &end));
    if (word.empty() || *end != '\0' || !std::isfinite(numbers.back())) numbers.back() = -1;
  }
  bool is_sound = numbers.size() == 4;
  for (const double number : numbers) is_sound = is_sound && number >= 0;
  if (!is_sound) return absl::DataLossError(absl::StrCat("step sizes \"", text, "\" are not four numbers"));
  sum_ = numbers[0];
  drift_ = numbers[1];
  eta_ = numbers[2];
  gamma_ = numbers[3];
  return absl::OkStatus();
}

}  // namespace trainyard::optim
