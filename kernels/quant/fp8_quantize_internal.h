#pragma once

#include "kernels/quant/fp8_quantize.h"

namespace trainyard::kernels::internal {

void Fp8QuantizeCpu(const Fp8QuantizeArgs& args, Stream& stream);
void Fp8DequantizeCpu(const Fp8DequantizeArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
