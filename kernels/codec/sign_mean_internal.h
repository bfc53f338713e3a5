#pragma once

#include "kernels/codec/sign_mean.h"

namespace trainyard::kernels::internal {

void SignMeanEncodeCpu(const SignMeanEncodeArgs& args, Stream& stream);
void SignMeanDecodeCpu(const SignMeanDecodeArgs& args, Stream& stream);
void SignMeanEncodeCuda(const SignMeanEncodeArgs& args, Stream& stream);
void SignMeanDecodeCuda(const SignMeanDecodeArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
