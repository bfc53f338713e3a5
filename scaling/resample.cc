#include "scaling/resample.h"

#include <algorithm>

namespace trainyard::scaling {
namespace {

constexpr int kMaxTries = 100;
constexpr uint64_t kIncrement = 0x9E3779B97F4A7C15ULL;

// The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection that mixes all bits.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

}  // namespace

void Resample(uint64_t seed, int resample, int group, int least_points, std::vector<Observation>* runs) {
  const uint64_t count = runs->size();
  if (count == 0) return;
  const int wanted = std::min(least_points, CountPoints(*runs));
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    uint64_t key = Mix(seed + kIncrement);
    for (const int part : {resample, group, attempt}) key = Mix(key ^ (static_cast<uint64_t>(part) + 1));
    for (Observation& run : *runs) run.weight = 0;
    for (uint64_t i = 0; i < count; ++i) {
      // The high half of a 128-bit product: uniform to within count / 2^64.
      const auto place =
          static_cast<uint64_t>((static_cast<unsigned __int128>(Mix(key + (i + 1) * kIncrement)) * count) >> 64);
      (*runs)[place].weight += 1;
    }
    if (CountPoints(*runs) >= wanted) return;
  }
}

}  // namespace trainyard::scaling
