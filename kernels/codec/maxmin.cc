#include "kernels/codec/maxmin.h"

#include "kernels/codec/maxmin_internal.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace {

void CheckFormat(const MaxminFormat& format) {
  TY_CHECK(format.bits >= 1 && format.bits <= 8);
  TY_CHECK(IsBucketSize(format.bucket_size));
}

}  // namespace

void MaxminEncode(const MaxminEncodeArgs& args, Stream& stream) {
  CheckFormat(args.format);
  TY_CHECK_GE(args.wire.size(), args.format.WireOf(args.x.size()).bytes());
  TY_SELECT(stream, MaxminEncode)(args, stream);
}

void MaxminDecode(const MaxminDecodeArgs& args, Stream& stream) {
  CheckFormat(args.format);
  TY_CHECK_GE(args.wire.size(), args.format.WireOf(args.y.size()).bytes());
  TY_SELECT(stream, MaxminDecode)(args, stream);
}

double MaxminSquaredError(const MaxminErrorArgs& args, Stream& stream) {
  CheckFormat(args.format);
  return TY_SELECT(stream, MaxminSquaredError)(args, stream);
}

}  // namespace trainyard::kernels
