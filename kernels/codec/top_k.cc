#include "kernels/codec/top_k.h"

#include <algorithm>
#include <cmath>

#include "kernels/codec/top_k_internal.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace {

void CheckCount(int64_t k, int64_t elements, int64_t wire_bytes) {
  TY_CHECK_LT(elements, int64_t{1} << 32);
  TY_CHECK(k <= elements && (k > 0 || elements == 0));
  TY_CHECK_GE(wire_bytes, TopKBytes(k));
}

}  // namespace

int64_t TopKCount(int64_t elements, double density) {
  TY_CHECK(density > 0 && density <= 1);
  return std::min(elements, std::max<int64_t>(1, std::llround(density * static_cast<double>(elements))));
}

void TopKEncode(const TopKEncodeArgs& args, Stream& stream) {
  CheckCount(args.k, args.x.size(), args.wire.size());
  TY_SELECT(stream, TopKEncode)(args, stream);
}

void TopKDecode(const TopKDecodeArgs& args, Stream& stream) {
  CheckCount(args.k, args.y.size(), args.wire.size());
  TY_SELECT(stream, TopKDecode)(args, stream);
}

}  // namespace trainyard::kernels
