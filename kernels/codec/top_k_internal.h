#pragma once

#include "kernels/codec/top_k.h"

namespace trainyard::kernels::internal {

void TopKEncodeCpu(const TopKEncodeArgs& args, Stream& stream);
void TopKDecodeCpu(const TopKDecodeArgs& args, Stream& stream);
void TopKEncodeCuda(const TopKEncodeArgs& args, Stream& stream);
void TopKDecodeCuda(const TopKDecodeArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
