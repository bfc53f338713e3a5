#include "kernels/optim/moving_average.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/moving_average_internal.h"

namespace trainyard::kernels {
void MovingAverage(const MovingAverageArgs& args, Stream& stream) {
  TY_CHECK(args.x.dtype() == DType::kF32 && args.average.dtype() == DType::kF32);
  TY_CHECK_EQ(args.x.size(), args.average.size());
  TY_SELECT(stream, MovingAverage)(args, stream);
}

}  // namespace trainyard::kernels
