#pragma once

#include "kernels/pointwise/rope.h"

namespace trainyard::kernels::internal {

void RopeTableCpu(const RopeTableArgs& args, Stream& stream);
void RopeForwardCpu(const RopeArgs& args, Stream& stream);
void RopeBackwardCpu(const RopeArgs& args, Stream& stream);
void RopeForwardCuda(const RopeArgs& args, Stream& stream);
void RopeBackwardCuda(const RopeArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
