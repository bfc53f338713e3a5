#include "kernels/core/dispatch.h"
#include "kernels/gemm/cublaslt.h"
#include "kernels/gemm/gemm_internal.h"
#include "kernels/gemm/gemm_tile.h"

namespace trainyard::kernels::internal {
namespace {

const float* ScaleOf(const TensorView& scale) {
  return scale ? scale.as<float>() : nullptr;
}

}  // namespace

void GemmTiled(const GemmArgs& args, Stream& stream) {
  const int64_t m = args.c.dim(0);
  const int64_t n = args.c.dim(1);
  const int64_t k = args.a.dim(args.transpose_a ? 0 : 1);
  DispatchFloat(args.a.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const StridedOperand<T> a = {args.a.as<T>(), args.transpose_a ? 1 : k, args.transpose_a ? m : 1};
    const StridedOperand<T> b = {args.b.as<T>(), args.transpose_b ? k : 1, args.transpose_b ? 1 : n};
    const auto launch = [&](auto c_tag) {
      using C = typename decltype(c_tag)::type;
      TileOutput<C> out = {.c = args.c.as<C>(), .rows = m, .cols = n, .alpha = args.alpha, .beta = args.beta};
      out.scale_a = ScaleOf(args.a_scale);
      out.scale_b = ScaleOf(args.b_scale);
      out.SetBias(args.bias);
      LaunchTiledProduct(a, b, out, k, stream);
    };
    if (args.c.dtype() == DType::kF32) {
      launch(DTypeTag<float>{});
    } else {
      launch(DTypeTag<T>{});
    }
  });
}

void GemmCuda(const GemmArgs& args, Stream& stream) {
  LtProduct product = {.a = args.a.data(),
                       .b = args.b.data(),
                       .c = args.c.data(),
                       .a_type = args.a.dtype(),
                       .b_type = args.b.dtype(),
                       .c_type = args.c.dtype(),
                       .transpose_a = args.transpose_a,
                       .transpose_b = args.transpose_b,
                       .m = args.c.dim(0),
                       .n = args.c.dim(1),
                       .k = args.a.dim(args.transpose_a ? 0 : 1),
                       .alpha = args.alpha,
                       .beta = args.beta,
                       .a_factor = ScaleOf(args.a_scale),
                       .b_factor = ScaleOf(args.b_scale)};
  if (args.bias) {
    product.bias = args.bias.data();
    product.bias_type = args.bias.dtype();
  }
  // The library adds a bias of the output's dtype only.
  const bool takes_bias = !args.bias || args.bias.dtype() == args.c.dtype();
  if (!takes_bias || !RunCublasLt(product, stream)) GemmTiled(args, stream);
}

}  // namespace trainyard::kernels::internal
