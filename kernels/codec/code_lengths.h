#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace trainyard::kernels::internal {

// Lengths, at most `longest`, of the prefix code with the fewest bits in all for symbols of these weights (> 0), by
// package-merge (Larmore and Hirschberg, 1990). 2 <= weights.size() <= 2^longest.
std::vector<uint8_t> CodeLengths(absl::Span<const int64_t> weights, int longest);

}  // namespace trainyard::kernels::internal
