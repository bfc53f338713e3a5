#pragma once

#include "kernels/quant/mxfp4.h"

namespace trainyard::kernels::internal {

void MxQuantizeCpu(const MxQuantizeArgs& args, Stream& stream);
void MxQuantizeCuda(const MxQuantizeArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
