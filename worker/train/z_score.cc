#include "worker/train/z_score.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace trainyard::train {

double ZScore::Push(double value) {
  if (!std::isfinite(value)) return std::numeric_limits<double>::infinity();
  float* const window = window_.as<float>();
  const int64_t known = std::min(count_, kZScoreWindow);
  double score = 0;
  if (known >= kZScoreLeast) {
    double sum = 0;
    for (int64_t i = 0; i < known; ++i) sum += window[i];
    const double mean = sum / static_cast<double>(known);
    double squares = 0;
    for (int64_t i = 0; i < known; ++i) squares += (window[i] - mean) * (window[i] - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(known));
    if (deviation > 0) score = (value - mean) / deviation;
  }
  window[count_ % kZScoreWindow] = static_cast<float>(value);
  ++count_;
  return score;
}

}  // namespace trainyard::train
