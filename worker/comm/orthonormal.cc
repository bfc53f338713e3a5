#include "worker/comm/orthonormal.h"

#include <algorithm>
#include <cmath>

namespace trainyard::comm {
namespace {

// Eight sums side by side, so that the compiler can use vectors without changing the order.
double Dot(const float* a, const float* b, int64_t length) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= length; i += 8) {
    for (int lane = 0; lane < 8; ++lane) {
      lanes[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
    }
  }
  for (; i < length; ++i) lanes[i % 8] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

}  // namespace

int Orthonormalize(float* vectors, int count, int64_t length) {
  int zeros = 0;
  for (int v = 0; v < count; ++v) {
    float* const vector = vectors + v * length;
    // Scaled first: products of tiny or huge values would leave the range of what follows.
    float largest = 0;
    for (int64_t i = 0; i < length; ++i) largest = std::max(largest, std::fabs(vector[i]));
    if (largest > 0) {
      for (int64_t i = 0; i < length; ++i) vector[i] /= largest;
    }
    const double norm = std::sqrt(Dot(vector, vector, length));
    for (int pass = 0; pass < 2; ++pass) {
      for (int u = 0; u < v; ++u) {
        const float* const unit = vectors + u * length;
        const double along = Dot(vector, unit, length);
        for (int64_t i = 0; i < length; ++i) {
          const double part = along * static_cast<double>(unit[i]);
          vector[i] = static_cast<float>(static_cast<double>(vector[i]) - part);
        }
      }
    }
    const double left = std::sqrt(Dot(vector, vector, length));
    if (!(left > 1e-6 * norm)) {
      std::fill_n(vector, length, 0.0f);
      ++zeros;
      continue;
    }
    for (int64_t i = 0; i < length; ++i) vector[i] = static_cast<float>(static_cast<double>(vector[i]) / left);
  }
  return zeros;
}

}  // namespace trainyard::comm
