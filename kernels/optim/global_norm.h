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

}  // namespace trainyard::kernels
