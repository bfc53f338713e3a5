#pragma once

#include "kernels/norm/channel_norm.h"

namespace trainyard::kernels::internal {

void ChannelNormForwardCpu(const ChannelNormForwardArgs& args, Stream& stream);
void ChannelNormBackwardCpu(const ChannelNormBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
