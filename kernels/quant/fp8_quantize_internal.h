#pragma once

#include "kernels/quant/fp8_quantize.h"

namespace trainyard::kernels::internal {

// What scales are made of. NaN stays.
TY_INLINE float Fp8UsedAmax(float amax) {
  return amax < kFp8SmallestAmax ? kFp8SmallestAmax : amax;
}

inline DType Fp8CodeType(const Fp8QuantizeArgs& args) {
  return (args.codes ? args.codes : args.transposed).dtype();
}

void Fp8QuantizeCpu(const Fp8QuantizeArgs& args, Stream& stream);
void Fp8DequantizeCpu(const Fp8DequantizeArgs& args, Stream& stream);
void Fp8QuantizeCuda(const Fp8QuantizeArgs& args, Stream& stream);
void Fp8DequantizeCuda(const Fp8DequantizeArgs& args, Stream& stream);
void Fp8RowSumsCpu(const Fp8RowSumsArgs& args, Stream& stream);
void Fp8RowSumsCuda(const Fp8RowSumsArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
