#pragma once

#include "kernels/quant/nvfp4_post_hoc.h"

namespace trainyard::kernels::internal {

void NvPostHocQuantizeCpu(const NvPostHocArgs& args, Stream& stream);
void NvPostHocQuantizeCuda(const NvPostHocArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
