#pragma once

#include "kernels/quant/abs_max.h"

namespace trainyard::kernels::internal {

void AbsMaxCpu(const AbsMaxArgs& args, Stream& stream);
void AbsMaxCuda(const AbsMaxArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
