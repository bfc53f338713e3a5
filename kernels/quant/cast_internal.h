#pragma once

#include "kernels/quant/cast.h"

namespace trainyard::kernels::internal {

void NarrowCpu(const NarrowArgs& args, Stream& stream);
void WidenCpu(const WidenArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
