// Elements of a tensor as floats, a block at a time: what lets one loop serve every mix of storage types. Blocks stay
// in the level 1 cache, so the copies cost nothing next to memory.
#pragma once

#include <cstdint>

#include "kernels/core/philox.h"
#include "kernels/core/tensor.h"
#include "kernels/quant/cast.h"

namespace trainyard::kernels::internal {

inline constexpr int64_t kBlock = 512;          // elements
inline constexpr int64_t kGrain = 16 * kBlock;  // elements a thread takes at least

// Elements [begin, begin + count), count <= kBlock, of an f32 or bf16 tensor. Of f32 they are the tensor's own memory:
// what is written to them is stored at once, and StoreBlock does nothing.
float* LoadBlock(const TensorView& x, int64_t begin, int64_t count, float* buffer);

// How a block is rounded when its tensor is bf16 or E4M3.
struct BlockRounding {
  Rounding rounding = Rounding::kNearestEven;
  PhiloxKey random;
  int64_t first_element = 0;  // number of the view's first element in its tensor

  BlockRounding For(uint16_t purpose) const {
    BlockRounding result = *this;
    result.random.purpose = purpose;
    return result;
  }
};

// Stores what LoadBlock returned, or other floats, to elements [begin, begin + count).
void StoreBlock(const float* block, const BlockRounding& how, int64_t begin, int64_t count, const TensorView& x);

// The same of an E4M3 tensor with one f32 scale for each kScaleGroup elements: x = code * scale. Storing makes the
// scales anew, max |x| / 448 over the group. `begin` is a multiple of kScaleGroup.
inline constexpr int64_t kScaleGroup = 128;
float* LoadScaledBlock(const TensorView& codes, const TensorView& scales, int64_t begin, int64_t count, float* buffer);
void StoreScaledBlock(const float* block, const BlockRounding& how, int64_t begin, int64_t count,
                      const TensorView& codes, const TensorView& scales);

}  // namespace trainyard::kernels::internal
