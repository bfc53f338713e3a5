// What a study's fit has to know of a recipe's linear scheme.
#pragma once

#include <optional>

#include "proto/spec/linear_options.h"
#include "scaling/run_table.h"

namespace trainyard::study {

struct RecipeTraits {
  // A compressed forward costs parameters (effN), a compressed backward tokens (effD).
  scaling::ActsOn acts_on = scaling::ActsOn::kParameters;
  // Of a stored weight, scales of blocks included; 0 where that is not one number (2:4 grids).
  double bits = 0;
  // effN that the capacity law predicts from the errors of weights and activations on N(0, 1): of QuEST's projection,
  // which is the one with the least error. Excluded layers are not taken into account.
  std::optional<double> capacity;
};

RecipeTraits TraitsOf(const spec::LinearOptions& linear);

}  // namespace trainyard::study
