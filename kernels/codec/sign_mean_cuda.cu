#include "kernels/codec/bucket_wire_cuda.h"
#include "kernels/codec/code.h"
#include "kernels/codec/sign_mean_internal.h"

namespace trainyard::kernels::internal {
namespace {

struct SignMeanCodeOnDevice {
  using Record = float;

  __device__ void Prepare() {}
  __device__ float Summarise(const float* x, int count) const {
    double sum = 0;
    for (int i = static_cast<int>(threadIdx.x % 32); i < count; i += 32) {
      sum += static_cast<double>(__builtin_fabsf(x[i]));
    }
    return FiniteOrNan(SumOverLanes(sum) / static_cast<double>(count));
  }
  __device__ void Codes(float, const float (&x)[8], int64_t, int32_t (&codes)[8]) const {
    for (int j = 0; j < 8; ++j) codes[j] = x[j] < 0.0f ? 1 : 0;
  }
  // The sign by its bit: arithmetic on a GPU may give a NaN other bits.
  __device__ void Values(float mean, const int32_t (&codes)[8], float (&y)[8]) const {
    const uint32_t bits = __builtin_bit_cast(uint32_t, mean);
    for (int j = 0; j < 8; ++j) y[j] = __builtin_bit_cast(float, codes[j] != 0 ? bits ^ 0x80000000u : bits);
  }
};

}  // namespace

void SignMeanEncodeCuda(const SignMeanEncodeArgs& args, Stream& stream) {
  EncodeBucketsCuda(args.format.WireOf(args.x.size()), SignMeanCodeOnDevice(), args.x.as<float>(),
                    args.wire.as<uint8_t>(), stream);
}

void SignMeanDecodeCuda(const SignMeanDecodeArgs& args, Stream& stream) {
  DecodeBucketsCuda(args.format.WireOf(args.y.size()), SignMeanCodeOnDevice(), args.wire.as<uint8_t>(),
                    args.y.as<float>(), stream);
}

}  // namespace trainyard::kernels::internal
