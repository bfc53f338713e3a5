#include "worker/comm/lgreco.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace trainyard::comm {
namespace {

constexpr int kUnits = 10'000;

LgrecoPlan DefaultPlan(const std::vector<LgrecoTensor>& tensors, double alpha) {
  LgrecoPlan plan;
  for (const LgrecoTensor& tensor : tensors) {
    const auto choice = static_cast<size_t>(tensor.default_choice);
    plan.choices.push_back(tensor.default_choice);
    plan.error += tensor.errors[choice];
    plan.size += tensor.sizes[choice];
  }
  plan.budget = alpha * plan.error;
  return plan;
}

}  // namespace

absl::StatusOr<LgrecoPlan> PlanLgreco(const std::vector<LgrecoTensor>& tensors, double alpha) {
  for (size_t l = 0; l < tensors.size(); ++l) {
    TY_CHECK_EQ(tensors[l].errors.size(), tensors[l].sizes.size());
    for (double error : tensors[l].errors) {
      if (!std::isfinite(error) || error < 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("error ", error, " of tensor ", l, " is not a number to plan with"));
      }
    }
  }
  const LgrecoPlan usual = DefaultPlan(tensors, alpha);
  if (!(usual.budget > 0)) return usual;

  // size[t]: the smallest with cost exactly t; error[t] breaks ties. choice[l][t] leads there.
  constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  std::vector<int64_t> size(kUnits + 1, kNever);
  std::vector<double> error(kUnits + 1, 0.0);
  std::vector<std::vector<int8_t>> choice(tensors.size(), std::vector<int8_t>(kUnits + 1, -1));
  std::vector<std::vector<int>> cost(tensors.size());
  size[0] = 0;
  for (size_t l = 0; l < tensors.size(); ++l) {
    const LgrecoTensor& tensor = tensors[l];
    std::vector<int64_t> next_size(kUnits + 1, kNever);
    std::vector<double> next_error(kUnits + 1, 0.0);
    for (size_t p = 0; p < tensor.errors.size(); ++p) {
      const double units = std::ceil(tensor.errors[p] / (usual.budget / kUnits));
      cost[l].push_back(units <= kUnits ? static_cast<int>(units) : kUnits + 1);
      for (int t = cost[l][p]; t <= kUnits; ++t) {
        const auto to = static_cast<size_t>(t), from = static_cast<size_t>(t - cost[l][p]);
        if (size[from] == kNever) continue;
        const int64_t total = size[from] + tensor.sizes[p];
        const double sum = error[from] + tensor.errors[p];
        if (total > next_size[to] || (total == next_size[to] && sum >= next_error[to])) continue;
        next_size[to] = total;
        next_error[to] = sum;
        choice[l][to] = static_cast<int8_t>(p);
      }
    }
    size.swap(next_size);
    error.swap(next_error);
  }
  size_t best = 0;
  for (size_t t = 1; t <= kUnits; ++t) {
    if (size[t] < size[best] || (size[t] == size[best] && size[t] != kNever && error[t] < error[best])) best = t;
  }
  const bool default_is_allowed = alpha >= 1;
  if (size[best] == kNever || (default_is_allowed && size[best] >= usual.size)) return usual;

  LgrecoPlan plan{std::vector<int>(tensors.size()), usual.budget, error[best], size[best]};
  for (size_t l = tensors.size(); l-- > 0;) {
    plan.choices[l] = choice[l][best];
    best -= static_cast<size_t>(cost[l][static_cast<size_t>(plan.choices[l])]);
  }
  return plan;
}

}  // namespace trainyard::comm
