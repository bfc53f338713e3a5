#include "kernels/codec/magnitude_threshold.h"

#include <array>
#include <cstddef>

namespace trainyard::kernels::internal {

// Digit by digit from the top: the histogram of the next digit among the values that share the digits so far.
MagnitudeThreshold FindMagnitudeThreshold(const float* x, int64_t n, int64_t k) {
  constexpr int kDigits[][2] = {{20, 11}, {9, 11}, {0, 9}};  // shift, bits; the sign bit is clear
  constexpr int kTables = 4;                                 // neighbours often share a bin: no waiting for the store
  MagnitudeThreshold threshold{0, k};
  for (const auto& [shift, bits] : kDigits) {
    std::array<std::array<uint32_t, 2048>, kTables> counts = {};
    const uint32_t mask = (1u << bits) - 1;
    const int above = shift + bits;
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t magnitude = MagnitudeBits(x[i]);
      if ((magnitude >> above) != (threshold.magnitude >> above)) continue;
      ++counts[static_cast<size_t>(i) % kTables][(magnitude >> shift) & mask];
    }
    for (uint32_t digit = mask;; --digit) {
      int64_t in_bin = 0;
      for (const auto& table : counts) in_bin += table[digit];
      if (in_bin >= threshold.ties) {
        threshold.magnitude |= digit << shift;
        break;
      }
      threshold.ties -= in_bin;
    }
  }
  return threshold;
}

}  // namespace trainyard::kernels::internal
