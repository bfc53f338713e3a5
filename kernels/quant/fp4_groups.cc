#include "kernels/quant/fp4_groups.h"

#include "kernels/core/dispatch.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/fp4_groups_internal.h"

namespace trainyard::kernels {

void Fp4GroupsDequantize(const Fp4GroupsDequantizeArgs& args, Stream& stream) {
  TY_CHECK(internal::IsFloatStorage(args.values));
  TY_CHECK_EQ(args.values.rank(), 2);
  const int64_t group = args.scales.dtype() == DType::kU8 ? kMxGroup : kNvGroup;
  TY_CHECK_EQ(args.values.dim(1) % group, 0);
  TY_CHECK_EQ(args.packed.size(), args.values.size() / 2);
  TY_CHECK_EQ(args.scales.size(), args.values.size() / group);
  TY_SELECT(stream, Fp4GroupsDequantize)(args, stream);
}

}  // namespace trainyard::kernels
