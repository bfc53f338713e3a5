#include "worker/optim/elsa/elsa_penalty.h"

#include <cmath>
#include <numbers>

#include "base/check.h"

namespace trainyard::optim {
namespace {

using Schedule = spec::ElsaOptions::Schedule;

double InitialLambda(const spec::ElsaOptions& options) {
  return options.lambda_schedule == Schedule::kConstant ? options.lambda : options.lambda_init;
}

}  // namespace

double ScheduledLambda(const spec::ElsaOptions& options, int64_t step_index, int64_t steps) {
  if (options.lambda_schedule == Schedule::kConstant) return options.lambda;
  TY_CHECK_GE(step_index, 0);
  TY_CHECK_GE(steps, 1);
  const double progress = static_cast<double>(step_index) / static_cast<double>(steps);
  const double first = options.lambda_init, last = options.lambda;
  switch (options.lambda_schedule) {
    case Schedule::kConstant:
      break;
    case Schedule::kLinear:
      return first + (last - first) * progress;
    case Schedule::kCosine:
      return first + (last - first) * (1 - std::cos(std::numbers::pi * progress)) / 2;
    case Schedule::kExponential: {
      const double positive = first > 0 ? first : 1e-12;
      return positive * std::pow(last / positive, progress);
    }
  }
  return last;
}

ElsaPenalty PenaltyAt(const spec::ElsaOptions& options, int64_t step_index, int64_t steps) {
  TY_CHECK_GE(step_index, 0);
  if (step_index == 0) return {.lambda = InitialLambda(options)};
  const int64_t projection = (step_index - 1) / options.interval * options.interval;  // the last one before this step
  const double lambda = ScheduledLambda(options, projection, steps);
  const double before =
      projection == 0 ? InitialLambda(options) : ScheduledLambda(options, projection - options.interval, steps);
  return {.lambda = lambda, .dual_factor = lambda == before ? 1.0 : before / lambda};
}

}  // namespace trainyard::optim
