#include <cmath>
#include <vector>

#include "base/check.h"
#include "kernels/transform/dct_fft8.h"

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

DctPlan::DctPlan(int64_t n, Device device) : n_(n), fft_length_(n % 2 == 0 ? n / 2 : n), device_(device) {
  TY_CHECK_GE(n, 1);
  // One table after the other, then moved to where the device can read them.
  std::vector<float> tables;
  std::vector<size_t> begins;
  const auto begin_table = [&] { begins.push_back(tables.size()); };
  int64_t length = fft_length_;
  int64_t stride = 1;
  for (const int64_t factor : FactorsOf(fft_length_)) {
    const Pass pass{.factor = factor, .groups = length / factor, .stride = stride};
    begin_table();
    for (int64_t p = 0; p < pass.groups; ++p) {
      for (int64_t j = 1; j < factor; ++j) {
        AppendAngle(p * j, length, 1, tables);
        tables.back() = -tables.back();
      }
    }
    begin_table();
    for (int64_t i = 0; i < factor; ++i) AppendAngle(i, factor, 1, tables);
    passes_.push_back(pass);
    length /= factor;
    stride *= factor;
  }
  const bool is_even = n % 2 == 0;
  begin_table();
  for (int64_t k = 0; k < n; ++k) {
    const double scale = std::sqrt((k == 0 ? 1.0 : 2.0) / static_cast<double>(n));
    AppendAngle(k, 4 * n, is_even ? 0.5 * scale : scale, tables);
  }
  begin_table();
  for (int64_t k = 0; is_even && k <= n / 2; ++k) AppendAngle(k, n, 1, tables);

  tables_ = internal::DeviceArray<float>(tables, device);
  size_t next = 0;
  const auto table = [&] { return tables_.data() + begins[next++]; };
  for (Pass& pass : passes_) {
    pass.twiddles = table();
    pass.roots = table();
  }
  output_factors_ = table();
  split_factors_ = table();
}

int64_t DctPlan::thread_bytes() const {
  return static_cast<int64_t>(sizeof(internal::Complex8)) * (4 * fft_length_ + internal::ScratchLength(*this));
}

}  // namespace trainyard::kernels
