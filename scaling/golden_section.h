// The minimum of a function of one variable.
#pragma once

#include <cmath>
#include <limits>

namespace trainyard::scaling {

// Where f is least in [low, high]: the best of a coarse grid, then golden section around it, so f need be unimodal only
// between neighbours of the grid. Accurate to about sqrt(machine epsilon) for a smooth f.
template <typename F>
double MinimizeOnInterval(const F& f, double low, double high) {
  constexpr int kGrid = 32;
  constexpr int kSteps = 60;
  int best = 0;
  double best_value = std::numeric_limits<double>::infinity();
  for (int i = 0; i <= kGrid; ++i) {
    const double value = f(low + (high - low) * i / kGrid);
    if (value < best_value) {
      best_value = value;
      best = i;
    }
  }
  const double width = (high - low) / kGrid;
  double left = std::fmax(low, low + width * (best - 1));
  double right = std::fmin(high, low + width * (best + 1));
  const double ratio = (std::sqrt(5.0) - 1) / 2;
  double x1 = right - ratio * (right - left), x2 = left + ratio * (right - left);
  double f1 = f(x1), f2 = f(x2);
  for (int i = 0; i < kSteps && right - left > 1e-12; ++i) {
    if (f1 <= f2) {
      right = x2;
      x2 = x1;
      f2 = f1;
      x1 = right - ratio * (right - left);
      f1 = f(x1);
    } else {
      left = x1;
      x1 = x2;
      f1 = f2;
      x2 = left + ratio * (right - left);
      f2 = f(x2);
    }
  }
  return f1 <= f2 ? x1 : x2;
}

}  // namespace trainyard::scaling
