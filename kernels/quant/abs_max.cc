#include "kernels/quant/abs_max.h"

#include "kernels/core/dispatch.h"
#include "kernels/quant/abs_max_internal.h"
#include "kernels/quant/float_block.h"

namespace trainyard::kernels {

void AbsMax(const AbsMaxArgs& args, Stream& stream) {
  TY_CHECK(internal::IsFloatStorage(args.x));
  if (args.y.size() != 1) {
    TY_CHECK_EQ(args.x.rank(), 2);
    TY_CHECK_EQ(args.y.size(), args.x.dim(0));
  }
  TY_SELECT(stream, AbsMax)(args, stream);
}

}  // namespace trainyard::kernels
