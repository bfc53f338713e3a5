#include <algorithm>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "kernels/codec/magnitude_threshold.h"
#include "kernels/codec/top_k_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr uint32_t kInfinityBits = 0x7F800000;

}  // namespace

void TopKEncodeCpu(const TopKEncodeArgs& args, Stream&) {
  if (args.k == 0) return;
  const float* x = args.x.as<float>();
  const MagnitudeThreshold threshold = FindMagnitudeThreshold(x, args.x.size(), args.k);
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
