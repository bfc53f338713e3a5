#include "kernels/tangent/random_direction_formula.h"
#include "kernels/tangent/random_direction_internal.h"

namespace trainyard::kernels {

template <typename T>
void FillDirection(const DirectionKey& key, int64_t begin, int64_t count, T* out) {
  const PhiloxKey random = internal::RandomKeyOf(key);
  float normals[4];
  for (int64_t i = 0; i < count;) {
    const int64_t entry = begin + i;
    internal::DirectionNormals(random, entry >> 2, normals);
    for (int64_t lane = entry & 3; lane < 4 && i < count; ++lane, ++i) out[i] = static_cast<T>(normals[lane]);
  }
}

template void FillDirection<float>(const DirectionKey&, int64_t, int64_t, float*);
template void FillDirection<double>(const DirectionKey&, int64_t, int64_t, double*);

namespace internal {

void FillDirectionCpu(const DirectionKey& key, int64_t begin, int64_t count, float* out, Stream& stream) {
  stream.pool().ParallelFor(
      count, 1 << 12, [&](int64_t first, int64_t end) { FillDirection(key, begin + first, end - first, out + first); });
}

}  // namespace internal
}  // namespace trainyard::kernels
