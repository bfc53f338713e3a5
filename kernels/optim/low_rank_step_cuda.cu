#include "kernels/gemm/gemm.h"
#include "kernels/optim/adamw_formula.h"
#include "kernels/optim/low_rank_step.h"
#include "kernels/optim/quads.h"

namespace trainyard::kernels::internal {
namespace {

__global__ void StepByKernel(float lr, float weight_decay, const float* direction, QuadArray source, QuadArray weight,
                             int64_t size, bool is_aligned, bool has_master) {
  ForQuads(size, is_aligned, [&](const QuadPlace& place) {
    const Quad step = LoadFloats(direction, place);
    Quad param = DecodeQuad(source.dtype, LoadQuad(source, place));
    for (int j = 0; j < 4; ++j) param.x[j] = DecayedStep(lr, weight_decay, step.x[j], param.x[j]);
    if (has_master) StoreFloats(param, place, static_cast<float*>(source.data));
    StoreQuad(param, QuadRounding(), place, weight);
  });
}

}  // namespace

void LowRankStepCuda(const LowRankStepArgs& args, Stream& stream) {
  const int64_t rows = args.direction.rows(), cols = args.direction.cols();
  if (rows * cols == 0) return;
  Gemm({.a = args.direction.x,
        .b = args.direction.y,
        .c = args.product.Reshape({rows, cols}),
        .transpose_b = args.direction.transpose_y,
        .alpha = args.scale},
       stream);
  const bool has_master = static_cast<bool>(args.master);
  Launch(stream, ElementwiseGrid(rows * cols, 4), StepByKernel, args.lr, args.weight_decay, args.product.as<float>(),
         QuadArray(has_master ? args.master : args.weight), QuadArray(args.weight), rows * cols,
         HasAlignedQuads({args.product, args.master, args.weight}), has_master);
}

}  // namespace trainyard::kernels::internal
