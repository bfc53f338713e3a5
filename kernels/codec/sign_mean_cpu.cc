#include "kernels/codec/bucket_summary.h"
#include "kernels/codec/sign_mean_internal.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void SignsOf(const float* x, int64_t count, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) codes[i] = x[i] < 0.0f ? 1 : 0;
}

TY_SIMD void Values(const uint8_t* codes, float mean, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = codes[i] != 0 ? -mean : mean;
}

}  // namespace

void SignMeanEncodeCpu(const SignMeanEncodeArgs& args, Stream& stream) {
  const float* x = args.x.as<float>();
  EncodeBuckets<float>(
      args.format.WireOf(args.x.size()), args.wire.as<uint8_t>(), stream,
      [&](int64_t begin, int64_t count) { return MeanMagnitude(x + begin, count); },
      [&](float, int64_t begin, int64_t count, uint8_t* codes) { SignsOf(x + begin, count, codes); });
}

void SignMeanDecodeCpu(const SignMeanDecodeArgs& args, Stream& stream) {
  float* y = args.y.as<float>();
  DecodeBuckets<float>(
      args.format.WireOf(args.y.size()), args.wire.as<uint8_t>(), stream,
      [&](float mean, int64_t begin, int64_t count, const uint8_t* codes) { Values(codes, mean, count, y + begin); });
}

}  // namespace trainyard::kernels::internal
