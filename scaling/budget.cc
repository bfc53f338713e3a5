#include "scaling/budget.h"

#include <algorithm>

namespace trainyard::scaling {

double TrainingSpeedup(const Speedups& speedups) {
  return 1 / (1 / (3 * speedups.forward) + 2 / (3 * speedups.backward));
}

double BudgetLoss(const Law& law, double parameters, double tokens, const Speedups& speedups,
                  const Multipliers& multipliers) {
  return Loss(law, parameters * speedups.forward, tokens * TrainingSpeedup(speedups) / speedups.forward, multipliers);
}

std::vector<RankedRecipe> RankByBits(const StudyFit& fit) {
  std::vector<RankedRecipe> ranking;
  for (const RecipeFit& recipe : fit.recipes) {
    if (recipe.bits <= 0) continue;
    ranking.push_back({recipe.name, recipe.eff.parameters, recipe.bits, recipe.eff.parameters / recipe.bits});
  }
  std::stable_sort(ranking.begin(), ranking.end(),
                   [](const RankedRecipe& x, const RankedRecipe& y) { return x.eff_per_bit > y.eff_per_bit; });
  return ranking;
}

}  // namespace trainyard::scaling
