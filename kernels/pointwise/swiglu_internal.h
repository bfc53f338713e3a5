#pragma once

#include "kernels/pointwise/swiglu.h"

namespace trainyard::kernels::internal {

void SwigluForwardCpu(const SwigluForwardArgs& args, Stream& stream);
void SwigluBackwardCpu(const SwigluBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
