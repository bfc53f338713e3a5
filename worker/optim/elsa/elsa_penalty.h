// The penalty lambda of Elsa over the steps of a run (shared/methods/elsa.md 2.2 and 2.4): a pure function of the step,
// so that nothing of it need be in a checkpoint.
#pragma once

#include <cstdint>

#include "proto/spec/optimizer_options.h"

namespace trainyard::optim {

// The schedule at step index t of T = steps, with s0 = lambda_init and s1 = lambda:
//   constant s1;  linear s0 + (s1 - s0) t/T;  cosine s0 + (s1 - s0)(1 - cos(pi t/T))/2;
//   exponential s0 (s1/s0)^(t/T), with 1e-12 for s0 = 0
double ScheduledLambda(const spec::ElsaOptions& options, int64_t step_index, int64_t steps);

inline bool ProjectsAfter(const spec::ElsaOptions& options, int64_t step_index) {
  return step_index % options.interval == 0;
}

struct ElsaPenalty {
  double lambda = 0;       // of this step's gradient
  double dual_factor = 1;  // what u is multiplied with if this step projects
};

// lambda changes behind projections only: the step after the one at index t uses the schedule's value at t, and the
// steps up to the first projection lambda_init (or lambda, if constant). u = y / lambda keeps its scale for one more
// interval: the projection at t multiplies it by the lambda before over the lambda now.
ElsaPenalty PenaltyAt(const spec::ElsaOptions& options, int64_t step_index, int64_t steps);

}  // namespace trainyard::optim
