#include "kernels/influence/gradient_vector.h"

#include "kernels/core/dispatch.h"
#include "kernels/influence/gradient_vector_internal.h"
#include "kernels/optim/global_norm.h"

namespace trainyard::kernels {

void GatherElements(const GatherElementsArgs& args, Stream& stream) {
  TY_SELECT(stream, GatherElements)(args, stream);
}

void MoveElements(const MoveElementsArgs& args, Stream& stream) {
  TY_SELECT(stream, MoveElements)(args, stream);
}

void ScaleGradient(const ScaleGradientArgs& args, Stream& stream) {
  TY_CHECK(args.count == 0 || args.v != nullptr);
  TY_CHECK(args.count == 0 || args.m != nullptr || args.rule == ScaleGradientArgs::Rule::kFrozen);
  TY_SELECT(stream, ScaleGradient)(args, stream);
}

int64_t VectorNormWorkspace(int64_t count) {
  return (count + internal::kSquaresBlock - 1) / internal::kSquaresBlock;
}

// Sums of blocks by the op that norms of gradients are made with, then the rest here.
void VectorNorm(const VectorNormArgs& args, Stream& stream) {
  const int64_t partials = VectorNormWorkspace(args.count);
  const NormPiece piece = {.x = {args.x, DType::kF32, {args.count}}, .block = internal::kSquaresBlock};
  SquareSums(
      {.pieces = {&piece, 1}, .sums = {args.workspace, DType::kU8, {partials * static_cast<int64_t>(sizeof(double))}}},
      stream);
  TY_SELECT(stream, StoreUsableNorm)(args, partials, stream);
}

void DivideByNorm(const DivideByNormArgs& args, Stream& stream) {
  TY_SELECT(stream, DivideByNorm)(args, stream);
}

}  // namespace trainyard::kernels
