#include "kernels/quant/cast.h"

#include "kernels/core/dispatch.h"
#include "kernels/quant/cast_internal.h"

namespace trainyard::kernels {

void Narrow(const NarrowArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.size(), args.y.size());
  TY_SELECT(stream, Narrow)(args, stream);
}

void Widen(const WidenArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.size(), args.y.size());
  TY_SELECT(stream, Widen)(args, stream);
}

}  // namespace trainyard::kernels
