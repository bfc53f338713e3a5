// L-GreCo (arXiv:2210.17357; quantized-comm.md 2.7): how many bits each tensor gets. The fewest bytes whose summed
// error is at most alpha times that of the default choice, by dynamic programming over a discretised error budget.
//
//   T = alpha * sum_l e[l][default];  unit = T / 10000;  cost(l, p) = ceil(e[l][p] / unit)
//   D[l][t] = min over p of D[l-1][t - cost(l, p)] + s[l][p];  the cheapest D[L][t] with t <= 10000
//
// Rounding up makes it conservative by at most L / 10000 of T. Where the public code of the paper differs, and why we
// do not follow: it clamps costs to 10000, which lets a choice through that breaks the budget by itself (we leave such
// choices out), and to at least 1, which charges tensors without error (ours cost 0); its first layer prefers later
// candidates of equal size (ours takes the smaller error everywhere). If rounding up leaves nothing better than the
// default, that stays.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace trainyard::comm {

struct LgrecoTensor {
  std::vector<double> errors;  // by choice, |G - C(G)|: the norm, not its square
  std::vector<int64_t> sizes;  // by choice, bytes
  int default_choice = 0;
};

struct LgrecoPlan {
  std::vector<int> choices;  // by tensor
  double budget = 0;         // T
  double error = 0;          // of the choices
  int64_t size = 0;
};

// A pure function. InvalidArgument if an error is not finite or negative: then there is nothing to plan with.
absl::StatusOr<LgrecoPlan> PlanLgreco(const std::vector<LgrecoTensor>& tensors, double alpha);

}  // namespace trainyard::comm
