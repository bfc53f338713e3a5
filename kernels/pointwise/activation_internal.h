#pragma once

#include "kernels/pointwise/activation.h"

namespace trainyard::kernels::internal {

void LeakyReluForwardCpu(const LeakyReluForwardArgs& args, Stream& stream);
void LeakyReluBackwardCpu(const LeakyReluBackwardArgs& args, Stream& stream);
void TanhForwardCpu(const TanhForwardArgs& args, Stream& stream);
void TanhBackwardCpu(const TanhBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
