// Which rank writes which tensor: whole tensors, so that every shard is a sound file of its own, divided so that the
// ranks write about the same number of bytes.
#pragma once

#include <cstdint>
#include <vector>

namespace trainyard::ckpt {

// owner[i] of tensor i: the largest tensor first, each to the rank with the fewest bytes so far (the lowest such rank).
// No rank gets more than the even share plus the largest tensor. A pure function, equal on all ranks.
std::vector<int> DivideTensors(const std::vector<int64_t>& bytes, int ranks);

// Bytes of the rank that then has most.
int64_t LargestShare(const std::vector<int64_t>& bytes, int ranks);

}  // namespace trainyard::ckpt
