#include "kernels/codec/blocked_sum_cuda.h"
#include "kernels/codec/bucket_wire_cuda.h"
#include "kernels/codec/squared_distance_internal.h"

namespace trainyard::kernels::internal {
namespace {

// b may be null: zeros.
struct DistanceOfPiece {
  const float* a;
  const float* b;

  __device__ double operator()(int64_t begin, int64_t end) const {
    double sum = 0;
    for (int64_t i = begin + threadIdx.x % 32; i < end; i += 32) {
      double value = static_cast<double>(a[i]);
      if (b != nullptr) value -= static_cast<double>(b[i]);
      sum = __builtin_fma(value, value, sum);
    }
    return SumOverLanes(sum);
  }
};

}  // namespace

double SquaredDistanceCuda(const SquaredDistanceArgs& args, Stream& stream) {
  return BlockedSumCuda(args.a.size(), kDistancePiece, stream, DistanceOfPiece{args.a.as<float>(), args.b.as<float>()});
}

double SquaredNormCuda(const TensorView& a, Stream& stream) {
  return BlockedSumCuda(a.size(), kDistancePiece, stream, DistanceOfPiece{a.as<float>(), nullptr});
}

}  // namespace trainyard::kernels::internal
