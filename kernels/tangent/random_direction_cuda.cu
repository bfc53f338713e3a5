#include "kernels/core/launch.h"
#include "kernels/tangent/random_direction_formula.h"
#include "kernels/tangent/random_direction_internal.h"

namespace trainyard::kernels::internal {
namespace {

// A thread a block of four random numbers, of which those in [begin, begin + count) are stored.
__global__ void FillDirectionKernel(PhiloxKey key, int64_t begin, int64_t count, float* out) {
  const int64_t first_block = begin >> 2;
  const int64_t blocks = ((begin + count - 1) >> 2) + 1 - first_block;
  for (int64_t i = GlobalThread(); i < blocks; i += GlobalThreads()) {
    float normals[4];
    DirectionNormals(key, first_block + i, normals);
    for (int lane = 0; lane < 4; ++lane) {
      const int64_t at = (first_block + i) * 4 + lane - begin;
      if (at >= 0 && at < count) out[at] = normals[lane];
    }
  }
}

}  // namespace

void FillDirectionCuda(const DirectionKey& key, int64_t begin, int64_t count, float* out, Stream& stream) {
  if (count == 0) return;
  Launch(stream, ElementwiseGrid(count / 4 + 2), FillDirectionKernel, RandomKeyOf(key), begin, count, out);
}

}  // namespace trainyard::kernels::internal
