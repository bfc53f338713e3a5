// Blocks of Philox words in element order: the cost of stochastic rounding, so written for the widest multiplier of the
// CPU. The same words as RandomWord everywhere.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/philox.h"

namespace trainyard::kernels {

// What a buffer for `count` words needs: whole generator blocks, and some that are drawn in vain.
inline constexpr int64_t RandomBufferWords(int64_t count) {
  return count + 3 + 32;
}

// Draws the words of elements first .. first + count - 1 and returns where in `buffer` they begin.
const uint32_t* RandomWords(const PhiloxKey& key, uint64_t first, int64_t count, uint32_t* buffer);

namespace internal {

// Draws the words of `blocks` generator blocks, and up to 7 blocks more.
using DrawBlocks = void (*)(const PhiloxKey& key, uint32_t first_block, int64_t blocks, uint32_t* words);

// All that this CPU can run, the fastest first: for the test that they agree.
std::vector<DrawBlocks> AllDrawBlocks();

}  // namespace internal

}  // namespace trainyard::kernels
