#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "kernels/codec/top_k_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr uint32_t kInfinityBits = 0x7F800000;

// Magnitudes of floats are ordered like these.
uint32_t MagnitudeBits(float x) {
  return __builtin_bit_cast(uint32_t, x) & 0x7FFFFFFF;
}

// Where the k-th largest magnitude lies: every larger one is taken, and `ties` of those that are equal.
struct Threshold {
  uint32_t magnitude = 0;
  int64_t ties = 0;
};

// Digit by digit from the top: the histogram of the next digit among the values that share the digits so far.
Threshold FindThreshold(const float* x, int64_t n, int64_t k) {
  constexpr int kDigits[][2] = {{20, 11}, {9, 11}, {0, 9}};  // shift, bits; the sign bit is clear
  constexpr int kTables = 4;                                 // neighbours often share a bin: no waiting for the store
  Threshold threshold{0, k};
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

}  // namespace

void TopKEncodeCpu(const TopKEncodeArgs& args, Stream&) {
  if (args.k == 0) return;
  const float* x = args.x.as<float>();
  const Threshold threshold = FindThreshold(x, args.x.size(), args.k);
  uint8_t* indices = args.wire.as<uint8_t>();
  uint8_t* values = indices + sizeof(uint32_t) * static_cast<size_t>(args.k);
  bool is_finite = true;
  int64_t ties = threshold.ties;
  int64_t taken = 0;
  for (int64_t i = 0; taken < args.k; ++i) {
    const uint32_t magnitude = MagnitudeBits(x[i]);
    if (magnitude < threshold.magnitude) continue;
    if (magnitude == threshold.magnitude && ties-- <= 0) continue;
    const uint32_t index = static_cast<uint32_t>(i);
    std::memcpy(indices + 4 * taken, &index, sizeof(index));
    std::memcpy(values + 4 * taken, &x[i], sizeof(float));
    is_finite = is_finite && magnitude < kInfinityBits;  // what is not finite is the largest, so it is among the taken
    ++taken;
  }
  if (!is_finite) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(values, &nan, sizeof(nan));
  }
}

void TopKDecodeCpu(const TopKDecodeArgs& args, Stream&) {
  if (args.k == 0) return;
  float* y = args.y.as<float>();
  const int64_t n = args.y.size();
  const uint8_t* indices = args.wire.as<uint8_t>();
  const uint8_t* values = indices + sizeof(uint32_t) * static_cast<size_t>(args.k);
  float first;
  std::memcpy(&first, values, sizeof(first));
  if (first != first) {
    std::fill_n(y, n, std::numeric_limits<float>::quiet_NaN());
    return;
  }
  std::fill_n(y, n, 0.0f);
  for (int64_t i = 0; i < args.k; ++i) {
    uint32_t index;
    std::memcpy(&index, indices + 4 * i, sizeof(index));
    TY_CHECK_LT(static_cast<int64_t>(index), n);
    std::memcpy(&y[index], values + 4 * i, sizeof(float));
  }
}

}  // namespace trainyard::kernels::internal
