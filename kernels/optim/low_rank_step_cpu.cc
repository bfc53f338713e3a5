#include "kernels/core/simd.h"
#include "kernels/optim/adamw_formula.h"
#include "kernels/optim/blocks.h"
#include "kernels/optim/low_rank_rows.h"
#include "kernels/optim/low_rank_step.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void StepBy(float lr, float weight_decay, const float* direction, int64_t count, float* __restrict param) {
  for (int64_t i = 0; i < count; ++i) param[i] = DecayedStep(lr, weight_decay, direction[i], param[i]);
}

}  // namespace

void LowRankStepCpu(const LowRankStepArgs& args, Stream& stream) {
  const TensorView& source = args.master ? args.master : args.weight;
  const float* product = args.product.as<float>();
  const int64_t cols = args.direction.cols();
  ForRowsOfProduct(args.direction, args.scale, 0, args.product, stream, [&](int64_t row, int64_t rows) {
    alignas(64) float buffer[kBlock];
    const int64_t end = (row + rows) * cols;
    for (int64_t begin = row * cols; begin < end; begin += kBlock) {
      const int64_t count = std::min(kBlock, end - begin);
      float* param = LoadBlock(source, begin, count, buffer);
      StepBy(args.lr, args.weight_decay, product + begin, count, param);
      StoreBlock(param, {}, begin, count, args.weight);
    }
  });
}

}  // namespace trainyard::kernels::internal
