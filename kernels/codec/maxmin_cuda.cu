#include "kernels/codec/blocked_sum_cuda.h"
#include "kernels/codec/bucket_wire_cuda.h"
#include "kernels/codec/code.h"
#include "kernels/codec/maxmin_internal.h"

namespace trainyard::kernels::internal {
namespace {

struct Min {
  __device__ float operator()(float a, float b) const { return b < a ? b : a; }
};
struct Largest {
  __device__ float operator()(float a, float b) const { return b > a ? b : a; }
};

// Of a bucket; by all lanes of a warp. Which zero an extreme is does not show in the bucket.
__device__ inline MaxminBucket BucketOf(const float* x, int count, int32_t steps) {
  float minimum = x[0], maximum = x[0];
  uint32_t magnitude = 0;
  for (int i = static_cast<int>(threadIdx.x % 32); i < count; i += 32) {
    const float value = x[i];
    const uint32_t bits = FloatMagnitudeBits(value);
    minimum = Min()(minimum, value);
    maximum = Largest()(maximum, value);
    magnitude = bits > magnitude ? bits : magnitude;
  }
  minimum = WarpReduce(minimum, Min());
  maximum = WarpReduce(maximum, Largest());
  magnitude = WarpReduce(magnitude, Max());
  return MakeMaxminBucket(minimum, maximum, magnitude < kInfinityBits, steps);
}

struct MaxminCodeOnDevice {
  using Record = MaxminBucket;
  int32_t steps;
  bool is_nearest;
  PhiloxKey random;
  int64_t first_element;

  __device__ void Prepare() {}
  __device__ MaxminBucket Summarise(const float* x, int count) const { return BucketOf(x, count, steps); }
  __device__ void Codes(const MaxminBucket& bucket, const float (&x)[8], int64_t first, int32_t (&codes)[8]) const {
    if (!(bucket.unit > 0.0f)) {
      for (int j = 0; j < 8; ++j) codes[j] = 0;
      return;
    }
    float draws[8];
    if (is_nearest) {
      for (int j = 0; j < 8; ++j) draws[j] = kNearestDraw;
    } else {
      DrawEight(random, first_element + first, draws);
    }
    for (int j = 0; j < 8; ++j) codes[j] = MaxminCode(x[j], bucket, draws[j], steps);
  }
  // A GPU's NaN has bits of its own: those of the CPU are written out.
  __device__ void Values(const MaxminBucket& bucket, const int32_t (&codes)[8], float (&y)[8]) const {
    for (int j = 0; j < 8; ++j) y[j] = bucket.unit != bucket.unit ? bucket.unit : MaxminValue(codes[j], bucket);
  }
};

struct BucketError {
  const float* x;
  int32_t steps;
  bool is_nearest;

  __device__ double operator()(int64_t begin, int64_t end) const {
    const int count = static_cast<int>(end - begin);
    const MaxminBucket bucket = BucketOf(x + begin, count, steps);
    if (bucket.unit == 0.0f) return 0.0;
    const double unit = static_cast<double>(bucket.unit);
    if (!(unit > 0.0)) return unit;  // NaN
    double sum = 0;
    for (int i = static_cast<int>(threadIdx.x % 32); i < count; i += 32) {
      const MaxminError error = MaxminErrorOf(MaxminPosition(x[begin + i], bucket), is_nearest);
      sum = __builtin_fma(error.a, error.b, sum);
    }
    return unit * unit * SumOverLanes(sum);
  }
};

MaxminCodeOnDevice CodeOf(const MaxminFormat& format, CodeRounding rounding, const PhiloxKey& random, int64_t first) {
  return {(1 << format.bits) - 1, rounding == CodeRounding::kNearest, random, first};
}

}  // namespace

void MaxminEncodeCuda(const MaxminEncodeArgs& args, Stream& stream) {
  EncodeBucketsCuda(args.format.WireOf(args.x.size()),
                    CodeOf(args.format, args.rounding, args.random, args.first_element), args.x.as<float>(),
                    args.wire.as<uint8_t>(), stream);
}

void MaxminDecodeCuda(const MaxminDecodeArgs& args, Stream& stream) {
  DecodeBucketsCuda(args.format.WireOf(args.y.size()), CodeOf(args.format, CodeRounding::kNearest, {}, 0),
                    args.wire.as<uint8_t>(), args.y.as<float>(), stream);
}

double MaxminSquaredErrorCuda(const MaxminErrorArgs& args, Stream& stream) {
  return BlockedSumCuda(
      args.x.size(), args.format.bucket_size, stream,
      BucketError{args.x.as<float>(), (1 << args.format.bits) - 1, args.rounding == CodeRounding::kNearest});
}

}  // namespace trainyard::kernels::internal
