#include "kernels/quant/mxfp4.h"

#include "kernels/core/dispatch.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/mxfp4_internal.h"

namespace trainyard::kernels {

void MxQuantize(const MxQuantizeArgs& args, Stream& stream) {
  TY_CHECK(internal::IsFloatStorage(args.v));
  TY_CHECK_EQ(args.v.rank(), 2);
  TY_CHECK_EQ(args.v.dim(1) % kMxGroup, 0);
  TY_CHECK(args.format.Range() > 0.0f && args.format.Range() <= 1.0f);
  const int64_t size = args.v.size();
  if (args.packed) TY_CHECK_EQ(args.packed.size(), size / 2);
  if (args.scales) TY_CHECK_EQ(args.scales.size(), size / kMxGroup);
  if (args.mask) TY_CHECK_EQ(args.mask.size(), size / 8);
  if (args.values) {
    TY_CHECK(SameShape(args.values, args.v));
    TY_CHECK(internal::IsFloatStorage(args.values));
    TY_CHECK(args.values.data() != args.v.data() || args.values.dtype() == args.v.dtype());
  }
  TY_SELECT(stream, MxQuantize)(args, stream);
}

}  // namespace trainyard::kernels
