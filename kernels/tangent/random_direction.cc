#include "kernels/tangent/random_direction.h"

#include <array>
#include <cmath>

#include "kernels/core/philox.h"

namespace trainyard::kernels {
namespace {

// Four normals of one block: both coordinates of two Box-Muller pairs.
void Normals(const PhiloxKey& key, uint32_t block, float (&out)[4]) {
  const std::array<uint32_t, 4> words = RandomBlock(key, block);
  for (size_t pair = 0; pair < 2; ++pair) {
    const double radius = std::sqrt(-2.0 * std::log((static_cast<double>(words[2 * pair]) + 1.0) * 0x1p-32));
    const double angle = static_cast<double>(words[2 * pair + 1]) * (0x1p-32 * 6.283185307179586);
    out[2 * pair] = static_cast<float>(radius * std::cos(angle));
    out[2 * pair + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

}  // namespace

template <typename T>
void FillDirection(const DirectionKey& key, int64_t begin, int64_t count, T* out) {
  const PhiloxKey random{.seed = key.seed, .step = key.direction, .purpose = kRandomDirection, .tensor = key.tensor};
  float normals[4];
  for (int64_t i = 0; i < count;) {
    const int64_t entry = begin + i;
    Normals(random, static_cast<uint32_t>(entry >> 2), normals);
    for (int64_t lane = entry & 3; lane < 4 && i < count; ++lane, ++i) out[i] = static_cast<T>(normals[lane]);
  }
}

template void FillDirection<float>(const DirectionKey&, int64_t, int64_t, float*);
template void FillDirection<double>(const DirectionKey&, int64_t, int64_t, double*);

}  // namespace trainyard::kernels
