#pragma once

#include "kernels/transform/hadamard.h"

namespace trainyard::kernels::internal {

void HadamardCpu(const HadamardArgs& args, Stream& stream);
void RandomSignsCpu(const RandomSignsArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
