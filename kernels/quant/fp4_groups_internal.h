#pragma once

#include "kernels/quant/fp4_groups.h"

namespace trainyard::kernels::internal {

void Fp4GroupsDequantizeCpu(const Fp4GroupsDequantizeArgs& args, Stream& stream);

// values[i] = E2M1(codes[i]) * scales[i / group], for codes in a byte each; group 16 or 32.
void Fp4GroupValues(const uint8_t* codes, const float* scales, int64_t count, int64_t group, float* values);

// levels[i] = E2M1(codes[i]).
void Fp4Levels(const uint8_t* codes, int64_t count, float* levels);

// codes[i] = E2M1 code of u[i]: nearest even, or stochastic with words[i].
void Fp4NearestCodes(const float* u, int64_t count, uint8_t* codes);
void Fp4StochasticCodes(const float* u, const uint32_t* words, int64_t count, uint8_t* codes);

}  // namespace trainyard::kernels::internal
