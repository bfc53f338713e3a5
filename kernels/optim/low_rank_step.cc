#include "kernels/optim/low_rank_step.h"

#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace internal {

void LowRankStepCpu(const LowRankStepArgs& args, Stream& stream);
void LowRankStepCuda(const LowRankStepArgs& args, Stream& stream);

}  // namespace internal

void LowRankStep(const LowRankStepArgs& args, Stream& stream) {
  args.direction.Check();
  const int64_t size = args.direction.rows() * args.direction.cols();
  TY_CHECK_EQ(args.weight.size(), size);
  TY_CHECK(args.weight.dtype() == DType::kF32 || args.weight.dtype() == DType::kBF16);
  TY_CHECK(args.product.dtype() == DType::kF32);
  TY_CHECK_EQ(args.product.size(), size);
  if (args.master) {
    TY_CHECK(args.master.dtype() == DType::kF32);
    TY_CHECK_EQ(args.master.size(), size);
  }
  TY_SELECT(stream, LowRankStep)(args, stream);
}

}  // namespace trainyard::kernels
