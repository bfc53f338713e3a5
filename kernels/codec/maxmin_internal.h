#pragma once

#include "kernels/codec/maxmin.h"

namespace trainyard::kernels::internal {

void MaxminEncodeCpu(const MaxminEncodeArgs& args, Stream& stream);
void MaxminDecodeCpu(const MaxminDecodeArgs& args, Stream& stream);
double MaxminSquaredErrorCpu(const MaxminErrorArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
