#include <cmath>
#include <type_traits>

#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/pointwise/rope_internal.h"
#include "kernels/quant/largest_magnitude.h"

namespace trainyard::kernels::internal {
namespace {

double Frequency(const RopeTableArgs& args, int64_t i) {
  const double frequency = std::pow(args.theta, -2.0 * static_cast<double>(i) / static_cast<double>(args.head_dim));
  const RopeScaling& scaling = args.scaling;
  if (scaling.factor == 1) return frequency;
  constexpr double kTwoPi = 6.283185307179586;
  const double turns = static_cast<double>(scaling.original_max_positions) * frequency / kTwoPi;
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  if (turns > scaling.high_freq_factor) return frequency;
  const double smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency;
}

template <typename T>
struct Rotation {
  T* qkv;
  const float* table;  // of the first position
  int64_t seq;
  int64_t row_width;
  int64_t turned_heads;  // q and k heads lie side by side
  int64_t half;          // head_dim / 2
  float direction;       // 1 forward, -1 backward
};

template <typename T>
TY_INLINE void RotateTokens(const Rotation<T>& rotation, int64_t begin, int64_t end) {
  const int64_t half = rotation.half;
  for (int64_t token = begin; token < end; ++token) {
    const float* pairs = rotation.table + (token % rotation.seq) * half * 2;
    T* row = rotation.qkv + token * rotation.row_width;
    for (int64_t head = 0; head < rotation.turned_heads; ++head) {
      T* first = row + head * 2 * half;
      T* second = first + half;
#pragma GCC ivdep
      for (int64_t i = 0; i < half; ++i) {
        const float cosine = pairs[2 * i];
        const float sine = pairs[2 * i + 1] * rotation.direction;
        const float a = ToFloat(first[i]);
        const float b = ToFloat(second[i]);
        first[i] = FromFloat<T>(a * cosine - b * sine);
        second[i] = FromFloat<T>(b * cosine + a * sine);
      }
    }
  }
}

TY_SIMD void RotateTokensF32(const Rotation<float>& rotation, int64_t begin, int64_t end) {
  RotateTokens(rotation, begin, end);
}
TY_SIMD void RotateTokensBF16(const Rotation<BFloat16>& rotation, int64_t begin, int64_t end) {
  RotateTokens(rotation, begin, end);
}

void Rotate(const RopeArgs& args, float direction, Stream& stream) {
  const int64_t width = (args.q_heads + 2 * args.kv_heads) * args.head_dim;
  const int64_t tokens = args.qkv.size() / width;
  LargestMagnitude largest(args.amax);
  if (tokens == 0) return largest.Finish();
  DispatchFloat(args.qkv.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Rotation<T> rotation = {args.qkv.as<T>(),
                                  args.table.as<float>() + args.position_offset * args.head_dim,
                                  tokens / args.batch,
                                  width,
                                  args.q_heads + args.kv_heads,
                                  args.head_dim / 2,
                                  direction};
    stream.pool().ParallelFor(tokens, 16, [&](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<T, float>) {
        RotateTokensF32(rotation, begin, end);
      } else {
        RotateTokensBF16(rotation, begin, end);
      }
      largest.Add(args.qkv, begin * width, (end - begin) * width);
    });
  });
  largest.Finish();
}

}  // namespace

void RopeTableCpu(const RopeTableArgs& args, Stream& stream) {
  float* table = args.table.as<float>();
  const int64_t half = args.head_dim / 2;
  stream.pool().ParallelFor(half, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const double frequency = Frequency(args, i);
      for (int64_t t = 0; t < args.table.dim(0); ++t) {
        const double angle = static_cast<double>(t) * frequency;
        table[(t * half + i) * 2] = static_cast<float>(std::cos(angle));
        table[(t * half + i) * 2 + 1] = static_cast<float>(std::sin(angle));
      }
    }
  });
}

void RopeForwardCpu(const RopeArgs& args, Stream& stream) {
  Rotate(args, 1.0f, stream);
}

void RopeBackwardCpu(const RopeArgs& args, Stream& stream) {
  Rotate(args, -1.0f, stream);
}

}  // namespace trainyard::kernels::internal
