#include "kernels/gemm/linear.h"

#include <algorithm>

#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/elementwise.h"

namespace trainyard::kernels {

void LinearForward(const LinearForwardArgs& args, Stream& stream) {
  Gemm({.a = args.x, .b = args.w, .c = args.y, .transpose_b = true, .bias = args.bias, .workspace = args.workspace},
       stream);
}

void LinearBackwardInput(const LinearBackwardInputArgs& args, Stream& stream) {
  Gemm({.a = args.dy, .b = args.w, .c = args.dx, .beta = args.accumulate ? 1.0f : 0.0f, .workspace = args.workspace},
       stream);
}

void LinearBackwardWeight(const LinearBackwardWeightArgs& args, Stream& stream) {
  Gemm({.a = args.dy,
        .b = args.x,
        .c = args.dw,
        .transpose_a = true,
        .beta = args.accumulate ? 1.0f : 0.0f,
        .workspace = args.workspace},
       stream);
  if (args.db) BiasGradient({.dy = args.dy, .db = args.db, .accumulate = args.accumulate}, stream);
}

int64_t LinearWorkspaceBytes(DType dtype, int64_t rows, int64_t in, int64_t out) {
  return std::max({GemmWorkspaceBytes(dtype, rows, out, in), GemmWorkspaceBytes(dtype, rows, in, out),
                   GemmWorkspaceBytes(dtype, out, in, rows)});
}

}  // namespace trainyard::kernels
