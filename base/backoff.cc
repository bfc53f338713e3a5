#include "base/backoff.h"

#include <algorithm>

namespace trainyard {
namespace {

// splitmix64's finaliser: every bit of the result depends on every bit of the input.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace

absl::Duration Backoff(const BackoffOptions& options, int attempt, uint64_t seed) {
  absl::Duration wait = options.initial;
  for (int i = 0; i < attempt && wait < options.maximum; ++i) wait *= 2;
  wait = std::min(wait, options.maximum);
  const double unit = static_cast<double>(Mix(seed ^ Mix(static_cast<uint64_t>(attempt))) >> 11) * 0x1p-53;
  return wait * (1.0 + options.jitter * (2.0 * unit - 1.0));
}

}  // namespace trainyard
