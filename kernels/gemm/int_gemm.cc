#include "kernels/gemm/int_gemm.h"

#include "kernels/core/dispatch.h"
#include "kernels/gemm/int_gemm_internal.h"

namespace trainyard::kernels {
namespace {

void CheckCodes(const IntCodes& a, int64_t depth) {
  TY_CHECK_EQ(a.codes.rank(), 2);
  TY_CHECK_GE(depth, 0);
  TY_CHECK_LE(depth, kMaxIntGemmDepth);
  TY_CHECK_EQ(a.codes.dim(1), a.packed ? (depth + 1) / 2 : depth);
}

}  // namespace

void IntGemm(const IntGemmArgs& args, Stream& stream) {
  CheckCodes(args.a, args.depth);
  CheckCodes(args.b, args.depth);
  TY_CHECK_EQ(args.c.rank(), 2);
  TY_CHECK_EQ(args.c.dim(0), args.a.codes.dim(0));
  TY_CHECK_EQ(args.c.dim(1), args.b.codes.dim(0));
  TY_SELECT(stream, IntGemm)(args, stream);
}

void CodeRowSums(const CodeRowSumsArgs& args, Stream& stream) {
  CheckCodes(args.a, args.depth);
  TY_CHECK_EQ(args.sums.size(), args.a.codes.dim(0));
  TY_SELECT(stream, CodeRowSums)(args, stream);
}

void IntGridLinear(const IntGridLinearArgs& args, Stream& stream) {
  CheckCodes(args.a, args.depth);
  CheckCodes(args.b, args.depth);
  const int64_t m = args.a.codes.dim(0);
  const int64_t n = args.b.codes.dim(0);
  TY_CHECK_EQ(args.a_steps.size(), m);
  TY_CHECK_EQ(args.a_sums.size(), m);
  TY_CHECK_EQ(args.b_steps.size(), n);
  TY_CHECK_EQ(args.b_sums.size(), n);
  if (args.bias) TY_CHECK_EQ(args.bias.size(), n);
  TY_CHECK_EQ(args.y.rank(), 2);
  TY_CHECK_EQ(args.y.dim(0), m);
  TY_CHECK_EQ(args.y.dim(1), n);
  TY_SELECT(stream, IntGridLinear)(args, stream);
}

}  // namespace trainyard::kernels
