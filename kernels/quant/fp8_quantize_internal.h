#pragma once

#include "kernels/quant/fp8_quantize.h"

namespace trainyard::kernels::internal {

// What scales are made of. NaN stays.
TY_INLINE float Fp8UsedAmax(float amax) {
  return amax < kFp8SmallestAmax ? kFp8SmallestAmax : amax;
}

void Fp8QuantizeCpu(const Fp8QuantizeArgs& args, Stream& stream);
void Fp8DequantizeCpu(const Fp8DequantizeArgs& args, Stream& stream);
void Fp8QuantizeCuda(const Fp8QuantizeArgs& args, Stream& stream);
void Fp8DequantizeCuda(const Fp8DequantizeArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
