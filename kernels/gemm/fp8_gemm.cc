#include "kernels/gemm/fp8_gemm.h"

#include "kernels/core/dispatch.h"
#include "kernels/gemm/fp8_gemm_internal.h"

namespace trainyard::kernels {
namespace {

void CheckOperand(const TensorView& codes, const TensorView& inverse) {
  TY_CHECK_EQ(codes.rank(), 2);
  TY_CHECK(codes.dtype() == DType::kF8E4M3 || codes.dtype() == DType::kF8E5M2);
  TY_CHECK(inverse.dtype() == DType::kF32);
  TY_CHECK_EQ(inverse.size(), 1);
}

}  // namespace

void Fp8Gemm(const Fp8GemmArgs& args, Stream& stream) {
  CheckOperand(args.a, args.a_inverse);
  CheckOperand(args.b, args.b_inverse);
  TY_CHECK_EQ(args.c.rank(), 2);
  const int64_t m = args.c.dim(0);
  const int64_t n = args.c.dim(1);
  const int64_t k = args.a.dim(args.transpose_a ? 0 : 1);
  TY_CHECK_EQ(args.a.dim(args.transpose_a ? 1 : 0), m);
  TY_CHECK_EQ(args.b.dim(args.transpose_b ? 1 : 0), k);
  TY_CHECK_EQ(args.b.dim(args.transpose_b ? 0 : 1), n);
  TY_CHECK(args.widened == DType::kBF16 || args.widened == DType::kF32);
  TY_CHECK(args.c.dtype() == args.widened || args.c.dtype() == DType::kF32);
  if (args.bias) TY_CHECK_EQ(args.bias.size(), n);
  const int64_t needed_bytes = stream.device() == Device::kCuda
                                   ? internal::Fp8TransposedBytes(args.transpose_a ? m * k : 0) +
                                         internal::Fp8TransposedBytes(args.transpose_b ? 0 : n * k)
                                   : Fp8GemmWorkspaceBytes(args.widened, m, n, k);
  TY_CHECK_GE(args.workspace ? args.workspace.bytes() : 0, needed_bytes);
  TY_SELECT(stream, Fp8Gemm)(args, stream);
}

}  // namespace trainyard::kernels
