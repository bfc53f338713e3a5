#pragma once

#include "kernels/core/simd.h"
#include "kernels/embed/embedding.h"

namespace trainyard::kernels::internal {

// A row of dy and the token it belongs to, token in the high half.
using EmbeddingEntry = uint64_t;
TY_INLINE EmbeddingEntry MakeEntry(int32_t token, int64_t row) {
  return (static_cast<EmbeddingEntry>(token) << 32) | static_cast<EmbeddingEntry>(row);
}
TY_INLINE int64_t TokenOf(EmbeddingEntry entry) {
  return static_cast<int64_t>(entry >> 32);
}
TY_INLINE int64_t RowOf(EmbeddingEntry entry) {
  return static_cast<int64_t>(entry & 0xFFFFFFFF);
}

// The CUDA device's sort: each tile of rows counts its digits.
inline constexpr int64_t kSortTile = 2048;
inline constexpr int kDigitBits = 9;
inline int64_t SortTiles(int64_t rows) {
  return (rows + kSortTile - 1) / kSortTile;
}
inline int64_t DigitTableBytes(int64_t rows) {
  return (SortTiles(rows) << kDigitBits) * static_cast<int64_t>(sizeof(uint32_t));
}

void EmbeddingForwardCpu(const EmbeddingForwardArgs& args, Stream& stream);
void EmbeddingBackwardCpu(const EmbeddingBackwardArgs& args, Stream& stream);
void EmbeddingForwardCuda(const EmbeddingForwardArgs& args, Stream& stream);
void EmbeddingBackwardCuda(const EmbeddingBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
