#pragma once

#include "kernels/quant/nvfp4.h"

namespace trainyard::kernels::internal {

void NvQuantizeCpu(const NvQuantizeArgs& args, Stream& stream);
void NvQuantizeCuda(const NvQuantizeArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
