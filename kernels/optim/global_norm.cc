#include "kernels/optim/global_norm.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/global_norm_internal.h"

namespace trainyard::kernels {
void GlobalNorm(const GlobalNormArgs& args, Stream& stream) {
  for (const TensorView& x : args.tensors) TY_CHECK(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16);
  TY_CHECK(args.norm.dtype() == DType::kF32);
  TY_CHECK_EQ(args.norm.size(), 1);
  if (args.clip_factor) {
    TY_CHECK(args.clip_factor.dtype() == DType::kF32);
    TY_CHECK_EQ(args.clip_factor.size(), 1);
  }
  TY_CHECK_GE(args.grad_scale, 0.0f);
  TY_CHECK_GE(args.max_norm, 0.0f);
  TY_CHECK_GE(args.workspace.bytes(), GlobalNormWorkspaceBytes(args.tensors));
  TY_SELECT(stream, GlobalNorm)(args, stream);
}

int64_t SquareSumsBytes(absl::Span<const NormPiece> pieces) {
  int64_t blocks = 0;
  for (const NormPiece& piece : pieces) blocks += internal::BlocksOf(piece);
  return blocks * static_cast<int64_t>(sizeof(double));
}

void SquareSums(const SquareSumsArgs& args, Stream& stream) {
  for (const NormPiece& piece : args.pieces) {
    TY_CHECK(piece.x.dtype() == DType::kF32 || piece.x.dtype() == DType::kBF16);
    TY_CHECK_GE(piece.block, 1);
  }
  TY_CHECK_GE(args.sums.bytes(), SquareSumsBytes(args.pieces));
  TY_SELECT(stream, SquareSums)(args, stream);
}

NormAndFactor NormOfSquares(double squares, float max_norm) {
  NormAndFactor result;
  internal::StoreNorm(squares, 1.0f, max_norm, &result.norm, &result.clip_factor);
  return result;
}

int64_t GlobalNormWorkspaceBytes(absl::Span<const TensorView> tensors) {
  return internal::NormBlocks(tensors) * static_cast<int64_t>(sizeof(double));
}

}  // namespace trainyard::kernels
