// How an optimizer rounds what it stores in bf16.
#pragma once

#include <cstdint>

namespace trainyard::kernels {

// kStochastic rounds up with the probability that keeps the mean exact, so updates below half a unit in the last place
// are not lost on average; its bits come from Philox keyed by (seed, step, purpose, tensor, element), a purpose of its
// own for the parameter and for each moment. f32 storage is never rounded.
enum class Rounding : uint8_t { kNearest, kStochastic };

// Names the random words of one tensor in one step. `tensor` is the tensor's number in the model and `first_element`
// where the given views begin in it, so a shard rounds as it would inside the whole tensor.
struct RoundingKey {
  uint64_t seed = 0;
  uint32_t tensor = 0;
  int64_t first_element = 0;
};

}  // namespace trainyard::kernels
