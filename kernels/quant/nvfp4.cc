#include "kernels/quant/nvfp4.h"

#include "kernels/core/dispatch.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/nvfp4_internal.h"

namespace trainyard::kernels {

void NvQuantize(const NvQuantizeArgs& args, Stream& stream) {
  const NvFormat& format = args.format;
  TY_CHECK(internal::IsFloatStorage(args.x));
  TY_CHECK_EQ(args.x.rank(), 2);
  TY_CHECK_EQ(args.x.dim(1) % kNvGroup, 0);
  TY_CHECK_EQ(args.amax.size(), 1);
  TY_CHECK_EQ(args.tensor_scale.size(), 1);
  if (args.x_scale) TY_CHECK_EQ(args.x_scale.size(), 1);
  if (format.block == NvBlock::k16x16) {
    TY_CHECK_EQ(args.x.dim(0) % 16, 0);
    TY_CHECK(format.method == NvMethod::kNearest || format.method == NvMethod::kFourOverSix);
  }
  if (format.method == NvMethod::kMsEden) {
    TY_CHECK(format.eden_group == 16 || format.eden_group == 128);
    TY_CHECK_EQ(args.x.dim(1) % format.eden_group, 0);
    TY_CHECK(format.eden_clip >= 4.0f && format.eden_clip <= 8.0f);
  }
  const int64_t size = args.x.size();
  if (args.packed) TY_CHECK_EQ(args.packed.size(), size / 2);
  if (args.scales) TY_CHECK_EQ(args.scales.size(), size / kNvGroup);
  if (args.values) {
    TY_CHECK(SameShape(args.values, args.x));
    TY_CHECK(internal::IsFloatStorage(args.values));
    TY_CHECK(args.values.data() != args.x.data() || args.values.dtype() == args.x.dtype());
  }
  TY_SELECT(stream, NvQuantize)(args, stream);
}

}  // namespace trainyard::kernels
