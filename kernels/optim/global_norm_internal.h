#pragma once

#include <cmath>

#include "kernels/core/simd.h"
#include "kernels/optim/global_norm.h"

namespace trainyard::kernels::internal {

inline constexpr int64_t kNormBlock = 1 << 15;  // elements a partial sum; cut from each tensor's own beginning

inline int64_t NormBlocksOf(const TensorView& x) {
  return (x.size() + kNormBlock - 1) / kNormBlock;
}
inline int64_t NormBlocks(absl::Span<const TensorView> tensors) {
  int64_t blocks = 0;
  for (const TensorView& x : tensors) blocks += NormBlocksOf(x);
  return blocks;
}

inline int64_t BlocksOf(const NormPiece& piece) {
  return (piece.x.size() + piece.block - 1) / piece.block;
}

// The results, from the sum of squares. clip_factor may be null.
TY_INLINE void StoreNorm(double squares, float grad_scale, float max_norm, float* norm, float* clip_factor) {
  const double length = std::sqrt(squares) * static_cast<double>(grad_scale);
  *norm = static_cast<float>(length);
  if (clip_factor == nullptr) return;
  const double limit = static_cast<double>(max_norm);
  const bool is_finite = length - length == 0.0;
  *clip_factor = limit > 0.0 && is_finite && length > limit ? static_cast<float>(limit / length) : 1.0f;
}

void GlobalNormCpu(const GlobalNormArgs& args, Stream& stream);
void GlobalNormCuda(const GlobalNormArgs& args, Stream& stream);
void SquareSumsCpu(const SquareSumsArgs& args, Stream& stream);
void SquareSumsCuda(const SquareSumsArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
