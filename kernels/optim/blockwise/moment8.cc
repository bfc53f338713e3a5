#include "kernels/optim/blockwise/moment8.h"

#include <algorithm>

#include "base/check.h"

namespace trainyard::kernels {
namespace {

TY_SIMD void LoadFirst(const uint8_t* codes, float scale, int64_t count, float* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = FirstMomentOf(codes[i], scale);
}

TY_SIMD void LoadSecond(const uint8_t* codes, float scale, int64_t count, float* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = SecondMomentOf(codes[i], scale);
}

template <typename Load>
void LoadBlocks(const TensorView& codes, const TensorView& scales, int64_t begin, int64_t count, float* values,
                Load load) {
  TY_CHECK_EQ(begin % kMoment8Block, 0);
  for (int64_t at = 0; at < count; at += kMoment8Block) {
    load(codes.as<uint8_t>() + begin + at, scales.as<float>()[(begin + at) / kMoment8Block],
         std::min(kMoment8Block, count - at), values + at);
  }
}

}  // namespace

void LoadFirstMoments8(const TensorView& codes, const TensorView& scales, int64_t begin, int64_t count, float* values) {
  LoadBlocks(codes, scales, begin, count, values, LoadFirst);
}

void LoadSecondMoments8(const TensorView& codes, const TensorView& scales, int64_t begin, int64_t count,
                        float* values) {
  LoadBlocks(codes, scales, begin, count, values, LoadSecond);
}

}  // namespace trainyard::kernels
