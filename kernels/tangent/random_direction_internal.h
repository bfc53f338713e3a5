#pragma once

#include "kernels/tangent/random_direction.h"

namespace trainyard::kernels::internal {

void FillDirectionCpu(const DirectionKey& key, int64_t begin, int64_t count, float* out, Stream& stream);
void FillDirectionCuda(const DirectionKey& key, int64_t begin, int64_t count, float* out, Stream& stream);

}  // namespace trainyard::kernels::internal
