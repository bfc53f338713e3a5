#pragma once

#include "kernels/transform/dct.h"

namespace trainyard::kernels::internal {

void DctBasisCpu(const DctBasisArgs& args, Stream& stream);
void DctFftCpu(const DctFftArgs& args, Stream& stream);
void DctBasisCuda(const DctBasisArgs& args, Stream& stream);
void DctFftCuda(const DctFftArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
