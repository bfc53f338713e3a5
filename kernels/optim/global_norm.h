// The Euclidean norm of many tensors together, and the factor that clips it.
//
//   norm = grad_scale * sqrt(sum over tensors and elements of x^2)
//   clip_factor = max_norm / norm if norm > max_norm, else 1
//
// Squares are summed in f64 over fixed blocks and the blocks' sums in order: the same bits on any thread count. A GPU
// adds in another order, in two stages that follow from the shapes alone; the results stay on the device. The factor
// multiplies by the true norm's inverse once (methods/llmq.md, pitfall 1, is the squared norm). A NaN or infinite
// gradient shows as a norm that is not finite, and leaves the factor at 1: the caller decides what to do.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct GlobalNormArgs {
  absl::Span<const TensorView> tensors;  // each f32 or bf16
  float grad_scale = 1.0f;               // what the gradients are multiplied with before they are used; >= 0
  float max_norm = 0.0f;                 // 0: do not clip
  TensorView norm;                       // f32 (1), overwritten
  TensorView clip_factor = {};           // optional, f32 (1), overwritten; does not include grad_scale
  TensorView workspace;                  // u8, at least GlobalNormWorkspaceBytes, aligned to 8
};

int64_t GlobalNormWorkspaceBytes(absl::Span<const TensorView> tensors);

void GlobalNorm(const GlobalNormArgs& args, Stream& stream);

// The two stages one by one, for a norm over tensors of which several holders have parts: each sums the squares of its
// blocks, somebody adds up all of them in an order that does not depend on who has what.
//
//   sums[j] = sum of x^2 over block j, blocks numbered through the pieces; each is `block` elements, the last of a
//             piece what is left
//
// A block's sum has the same bits wherever it is computed on one kind of device.
struct NormPiece {
  TensorView x;       // f32 or bf16
  int64_t block = 1;  // >= 1
};
struct SquareSumsArgs {
  absl::Span<const NormPiece> pieces;
  TensorView sums;  // u8: SquareSumsBytes(pieces) of f64, overwritten
};
int64_t SquareSumsBytes(absl::Span<const NormPiece> pieces);
void SquareSums(const SquareSumsArgs& args, Stream& stream);

struct NormAndFactor {
  float norm = 0.0f;
  float clip_factor = 1.0f;
};
// Of the sum of all squares, as GlobalNorm with grad_scale 1.
NormAndFactor NormOfSquares(double squares, float max_norm);

}  // namespace trainyard::kernels
