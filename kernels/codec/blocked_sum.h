// A sum in f64 over pieces of an index range, by several threads: pieces go to blocks by a rule that knows the range
// only, so the result has the same bits for any number of threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/core/stream.h"

namespace trainyard::kernels::internal {

inline constexpr int64_t kSumBlocks = 256;

// How [0, count) is cut: pieces of `piece_size` in blocks of `block_size`.
struct BlockedSumLayout {
  int64_t block_size = 0;
  int64_t blocks = 0;  // up to kSumBlocks
};
inline BlockedSumLayout LayOutBlockedSum(int64_t count, int64_t piece_size) {
  constexpr int64_t kSmallestBlock = 1 << 15;
  const int64_t wanted = std::max(kSmallestBlock, (count + kSumBlocks - 1) / kSumBlocks);
  const int64_t block_size = (wanted + piece_size - 1) / piece_size * piece_size;
  return {block_size, (count + block_size - 1) / block_size};
}

// sum of piece(begin, end) over [0, count) cut every `piece_size` elements, added in order within up to 256 blocks.
template <typename Piece>
double BlockedSum(int64_t count, int64_t piece_size, Stream& stream, const Piece& piece) {
  const BlockedSumLayout layout = LayOutBlockedSum(count, piece_size);
  std::array<double, kSumBlocks> sums = {};
  stream.pool().ParallelFor(layout.blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t block_end = std::min(count, (block + 1) * layout.block_size);
      double sum = 0;
      for (int64_t begin = block * layout.block_size; begin < block_end; begin += piece_size) {
        sum += piece(begin, std::min(block_end, begin + piece_size));
      }
      sums[static_cast<size_t>(block)] = sum;
    }
  });
  double sum = 0;
  for (int64_t block = 0; block < layout.blocks; ++block) sum += sums[static_cast<size_t>(block)];
  return sum;
}

}  // namespace trainyard::kernels::internal
