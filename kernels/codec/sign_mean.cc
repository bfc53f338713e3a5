#include "kernels/codec/sign_mean.h"

#include "kernels/codec/sign_mean_internal.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {

void SignMeanEncode(const SignMeanEncodeArgs& args, Stream& stream) {
  TY_CHECK(IsBucketSize(args.format.bucket_size));
  TY_CHECK_GE(args.wire.size(), args.format.WireOf(args.x.size()).bytes());
  TY_SELECT(stream, SignMeanEncode)(args, stream);
}

void SignMeanDecode(const SignMeanDecodeArgs& args, Stream& stream) {
  TY_CHECK(IsBucketSize(args.format.bucket_size));
  TY_CHECK_GE(args.wire.size(), args.format.WireOf(args.y.size()).bytes());
  TY_SELECT(stream, SignMeanDecode)(args, stream);
}

}  // namespace trainyard::kernels
