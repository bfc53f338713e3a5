#include "kernels/codec/blocked_sum.h"
#include "kernels/codec/bucket_summary.h"
#include "kernels/codec/maxmin_internal.h"
#include "kernels/codec/random_words.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void StochasticCodes(const float* x, const uint32_t* words, MaxminBucket bucket, int32_t steps, int64_t count,
                             uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) {
    codes[i] = static_cast<uint8_t>(MaxminCode(x[i], bucket, ToUniform(words[i]), steps));
  }
}

TY_SIMD void NearestCodes(const float* x, MaxminBucket bucket, int32_t steps, int64_t count, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) {
    codes[i] = static_cast<uint8_t>(MaxminCode(x[i], bucket, kNearestDraw, steps));
  }
}

TY_SIMD void Values(const uint8_t* codes, MaxminBucket bucket, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = MaxminValue(codes[i], bucket);
}

// Sum over a bucket of f (1 - f), or of min(f, 1 - f)^2.
TY_INLINE double Add(double sum, MaxminError error) {
  return __builtin_fma(error.a, error.b, sum);
}

TY_SIMD double SumOfErrors(const float* x, MaxminBucket bucket, bool is_nearest, int64_t count) {
  constexpr int kWidth = 2 * kLanes;
  double lanes[kWidth] = {};
  const int64_t whole = count / kWidth * kWidth;
  for (int64_t i = 0; i < whole; i += kWidth) {
    for (int lane = 0; lane < kWidth; ++lane) {
      lanes[lane] = Add(lanes[lane], MaxminErrorOf(MaxminPosition(x[i + lane], bucket), is_nearest));
    }
  }
  for (int64_t i = whole; i < count; ++i) {
    lanes[i - whole] = Add(lanes[i - whole], MaxminErrorOf(MaxminPosition(x[i], bucket), is_nearest));
  }
  double sum = 0;
  for (int lane = 0; lane < kWidth; ++lane) sum += lanes[lane];
  return sum;
}

MaxminBucket BucketOf(const float* x, int64_t count, int32_t steps) {
  const BucketRange range = RangeOf(x, count);
  return MakeMaxminBucket(range.minimum, range.maximum, range.is_finite, steps);
}

}  // namespace

void MaxminEncodeCpu(const MaxminEncodeArgs& args, Stream& stream) {
  const float* x = args.x.as<float>();
  const int32_t steps = (1 << args.format.bits) - 1;
  EncodeBuckets<MaxminBucket>(
      args.format.WireOf(args.x.size()), args.wire.as<uint8_t>(), stream,
      [&](int64_t begin, int64_t count) { return BucketOf(x + begin, count, steps); },
      [&](MaxminBucket bucket, int64_t begin, int64_t count, uint8_t* codes) {
        if (!(bucket.unit > 0.0f)) {
          std::memset(codes, 0, static_cast<size_t>(count));
        } else if (args.rounding == CodeRounding::kNearest) {
          NearestCodes(x + begin, bucket, steps, count, codes);
        } else {
          uint32_t buffer[RandomBufferWords(kCodeChunk)];
          const uint64_t first = static_cast<uint64_t>(args.first_element + begin);
          StochasticCodes(x + begin, RandomWords(args.random, first, count, buffer), bucket, steps, count, codes);
        }
      });
}

void MaxminDecodeCpu(const MaxminDecodeArgs& args, Stream& stream) {
  float* y = args.y.as<float>();
  DecodeBuckets<MaxminBucket>(args.format.WireOf(args.y.size()), args.wire.as<uint8_t>(), stream,
                              [&](MaxminBucket bucket, int64_t begin, int64_t count, const uint8_t* codes) {
                                Values(codes, bucket, count, y + begin);
                              });
}

double MaxminSquaredErrorCpu(const MaxminErrorArgs& args, Stream& stream) {
  const float* x = args.x.as<float>();
  const int32_t steps = (1 << args.format.bits) - 1;
  return BlockedSum(args.x.size(), args.format.bucket_size, stream, [&](int64_t begin, int64_t end) {
    const MaxminBucket bucket = BucketOf(x + begin, end - begin, steps);
    if (bucket.unit == 0.0f) return 0.0;
    const double unit = static_cast<double>(bucket.unit);
    if (!(unit > 0.0)) return unit;  // NaN
    return unit * unit * SumOfErrors(x + begin, bucket, args.rounding == CodeRounding::kNearest, end - begin);
  });
}

}  // namespace trainyard::kernels::internal
