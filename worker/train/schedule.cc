#include "worker/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace trainyard::train {
namespace {

double Between(double floor, double share) {
  return floor + (1 - floor) * share;
}

}  // namespace

double RateMultiplier(const spec::ScheduleOptions& options, int64_t step, int64_t steps) {
  TY_CHECK_LE(0, step);
  TY_CHECK_LT(step, steps);
  if (step < options.warmup_steps) return static_cast<double>(step + 1) / static_cast<double>(options.warmup_steps);

  const int64_t last_peak = std::max<int64_t>(options.warmup_steps - 1, 0);
  if (step == last_peak && options.shape != spec::ScheduleShape::kWsd) return 1;
  // Beyond last_peak there is at least one step, so no division by zero.
  const double progress =
      step == last_peak ? 0.0 : static_cast<double>(step - last_peak) / static_cast<double>(steps - 1 - last_peak);
  switch (options.shape) {
    case spec::ScheduleShape::kConstant:
      return 1;
    case spec::ScheduleShape::kCosine:
      return Between(options.final_fraction, 0.5 * (1 + std::cos(std::numbers::pi * progress)));
    case spec::ScheduleShape::kLinear:
      return Between(options.final_fraction, 1 - progress);
    case spec::ScheduleShape::kWsd: {
      const auto decay_steps = static_cast<int64_t>(std::ceil(options.decay_fraction * static_cast<double>(steps)));
      const int64_t left = steps - 1 - step;
      if (left >= decay_steps) return 1;
      return Between(options.final_fraction, static_cast<double>(left) / static_cast<double>(decay_steps));
    }
  }
  TY_CHECK(false && "unknown schedule shape");
  return 0;
}

}  // namespace trainyard::train
