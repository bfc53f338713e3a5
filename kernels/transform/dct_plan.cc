#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/transform/dct_internal.h"

namespace trainyard::kernels {
namespace {

constexpr double kPi = 3.14159265358979323846;

// Fours first: they cost least. Then a two, and the odd primes in rising order.
std::vector<int64_t> FactorsOf(int64_t length) {
  std::vector<int64_t> factors;
  while (length % 4 == 0) {
    factors.push_back(4);
    length /= 4;
  }
  for (int64_t factor = 2; length > 1; ++factor) {
    if (factor * factor > length) factor = length;
    while (length % factor == 0) {
      factors.push_back(factor);
      length /= factor;
    }
  }
  return factors;
}

// (cos, sin) of 2 pi numerator / denominator, the angle reduced first so that large ones lose nothing.
void AppendAngle(int64_t numerator, int64_t denominator, double scale, std::vector<float>& table) {
  const double angle = 2 * kPi * static_cast<double>(numerator % denominator) / static_cast<double>(denominator);
  table.push_back(static_cast<float>(scale * std::cos(angle)));
  table.push_back(static_cast<float>(scale * std::sin(angle)));
}

}  // namespace

DctPlan::DctPlan(int64_t n) : n_(n), fft_length_(n % 2 == 0 ? n / 2 : n) {
  TY_CHECK_GE(n, 1);
  int64_t length = fft_length_;
  int64_t stride = 1;
  for (const int64_t factor : FactorsOf(fft_length_)) {
    Pass pass{.factor = factor, .groups = length / factor, .stride = stride, .twiddles = {}, .roots = {}};
    for (int64_t p = 0; p < pass.groups; ++p) {
      for (int64_t j = 1; j < factor; ++j) {
        AppendAngle(p * j, length, 1, pass.twiddles);
        pass.twiddles.back() = -pass.twiddles.back();
      }
    }
    for (int64_t i = 0; i < factor; ++i) AppendAngle(i, factor, 1, pass.roots);
    passes_.push_back(std::move(pass));
    length /= factor;
    stride *= factor;
  }
  const bool is_even = n % 2 == 0;
  for (int64_t k = 0; k < n; ++k) {
    const double scale = std::sqrt((k == 0 ? 1.0 : 2.0) / static_cast<double>(n));
    AppendAngle(k, 4 * n, is_even ? 0.5 * scale : scale, output_factors_);
    if (is_even && k <= n / 2) AppendAngle(k, n, 1, split_factors_);
  }
}

int64_t DctPlan::thread_bytes() const {
  return static_cast<int64_t>(sizeof(internal::Complex8)) * (4 * fft_length_ + internal::ScratchLength(*this));
}

}  // namespace trainyard::kernels
