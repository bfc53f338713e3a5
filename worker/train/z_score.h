// How unusual a value is among the recent ones: (value - mean) / standard deviation of a window of earlier values.
#pragma once

#include <cstdint>

#include "kernels/core/tensor.h"

namespace trainyard::train {

inline constexpr int64_t kZScoreWindow = 128;
// No score before so many values are known.
inline constexpr int64_t kZScoreLeast = 16;

// Keeps its window in memory of the caller, f32 (kZScoreWindow), which together with `count` is its whole state.
class ZScore {
 public:
  explicit ZScore(const kernels::TensorView& window) : window_(window) {}

  // The score of `value` against the window, which then takes it in. 0 while the window is short or constant. Values
  // that are not finite score infinity and stay out of the window.
  double Push(double value);

  const kernels::TensorView& window() const { return window_; }
  int64_t count() const { return count_; }  // values taken in so far
  void set_count(int64_t count) { count_ = count; }

 private:
  kernels::TensorView window_;
  int64_t count_ = 0;
};

}  // namespace trainyard::train
