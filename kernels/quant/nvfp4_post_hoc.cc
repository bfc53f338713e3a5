#include "kernels/quant/nvfp4_post_hoc.h"

#include "kernels/core/dispatch.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/nvfp4_post_hoc_internal.h"

namespace trainyard::kernels {

void NvPostHocQuantize(const NvPostHocArgs& args, Stream& stream) {
  TY_CHECK(internal::IsFloatStorage(args.x));
  TY_CHECK_EQ(args.x.rank(), 2);
  TY_CHECK_EQ(args.x.dim(1) % kNvGroup, 0);
  TY_CHECK(args.eden_clip >= 4.0f && args.eden_clip <= 8.0f);
  const int64_t size = args.x.size();
  TY_CHECK_EQ(args.pseudo_scales.size(), size / kNvGroup);
  TY_CHECK_EQ(args.tensor_scale.size(), 1);
  if (args.packed) TY_CHECK_EQ(args.packed.size(), size / 2);
  if (args.scales) TY_CHECK_EQ(args.scales.size(), size / kNvGroup);
  if (args.values) {
    TY_CHECK(SameShape(args.values, args.x));
    TY_CHECK(internal::IsFloatStorage(args.values));
    TY_CHECK(args.values.data() != args.x.data() || args.values.dtype() == args.x.dtype());
  }
  TY_SELECT(stream, NvPostHocQuantize)(args, stream);
}

}  // namespace trainyard::kernels
