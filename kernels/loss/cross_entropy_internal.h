#pragma once

#include "kernels/loss/cross_entropy.h"

namespace trainyard::kernels::internal {

void CrossEntropyForwardCpu(const CrossEntropyArgs& args, Stream& stream);
void CrossEntropyForwardBackwardCpu(const CrossEntropyArgs& args, Stream& stream);
void CrossEntropyForwardCuda(const CrossEntropyArgs& args, Stream& stream);
void CrossEntropyForwardBackwardCuda(const CrossEntropyArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
