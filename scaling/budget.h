// What a law says about spending: precision against speed at a fixed budget, and bits (docs/methods/scaling-laws.md).
#pragma once

#include <string>
#include <vector>

#include "scaling/study_fit.h"

namespace trainyard::scaling {

// How much faster the forward and the backward are than the reference's.
struct Speedups {
  double forward = 1;
  double backward = 1;
};

// Of a whole training step, whose forward is a third of the work: 1/s = (1/3)/forward + (2/3)/backward.
double TrainingSpeedup(const Speedups& speedups);

// The loss within a budget of inference for `parameters` and of training for `tokens` at the reference's speed: a
// faster forward pays for a larger model, a faster step for more work, L(N s_fw, D s_tr / s_fw).
double BudgetLoss(const Law& law, double parameters, double tokens, const Speedups& speedups,
                  const Multipliers& multipliers);

struct RankedRecipe {
  std::string name;
  double eff = 0;
  double bits = 0;
  double eff_per_bit = 0;
};

// Recipes of known bits by effN / bits, best first: the best use of memory when tokens are plenty.
std::vector<RankedRecipe> RankByBits(const StudyFit& fit);

}  // namespace trainyard::scaling
