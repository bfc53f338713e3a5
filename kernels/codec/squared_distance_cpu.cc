#include "kernels/codec/blocked_sum.h"
#include "kernels/codec/squared_distance_internal.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kWidth = 2 * kLanes;

// The square of a difference is longer than a double, so whether product and sum are fused shows in the bits: they are.
template <typename Term>
TY_INLINE double LaneSum(int64_t count, const Term& term) {
  double lanes[kWidth] = {};
  const int64_t whole = count / kWidth * kWidth;
  for (int64_t i = 0; i < whole; i += kWidth) {
    for (int lane = 0; lane < kWidth; ++lane) {
      const double value = term(i + lane);
      lanes[lane] = __builtin_fma(value, value, lanes[lane]);
    }
  }
  for (int64_t i = whole; i < count; ++i) lanes[i - whole] = __builtin_fma(term(i), term(i), lanes[i - whole]);
  double sum = 0;
  for (int lane = 0; lane < kWidth; ++lane) sum += lanes[lane];
  return sum;
}

TY_SIMD double Distance(const float* a, const float* b, int64_t count) {
  return LaneSum(count,
                 [&](int64_t i) TY_INLINE_LAMBDA { return static_cast<double>(a[i]) - static_cast<double>(b[i]); });
}

TY_SIMD double Norm(const float* a, int64_t count) {
  return LaneSum(count, [&](int64_t i) TY_INLINE_LAMBDA { return static_cast<double>(a[i]); });
}

}  // namespace

double SquaredDistanceCpu(const SquaredDistanceArgs& args, Stream& stream) {
  const float* a = args.a.as<float>();
  const float* b = args.b.as<float>();
  return BlockedSum(args.a.size(), kDistancePiece, stream,
                    [&](int64_t begin, int64_t end) { return Distance(a + begin, b + begin, end - begin); });
}

double SquaredNormCpu(const TensorView& a, Stream& stream) {
  const float* values = a.as<float>();
  return BlockedSum(a.size(), kDistancePiece, stream,
                    [&](int64_t begin, int64_t end) { return Norm(values + begin, end - begin); });
}

}  // namespace trainyard::kernels::internal
