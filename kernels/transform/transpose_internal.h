#pragma once

#include "kernels/transform/transpose.h"

namespace trainyard::kernels::internal {

void TransposeCpu(const TransposeArgs& args, Stream& stream);
void TransposeCuda(const TransposeArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
