#pragma once

#include "kernels/quant/fp4_groups.h"

namespace trainyard::kernels::internal {

void Fp4GroupsDequantizeCpu(const Fp4GroupsDequantizeArgs& args, Stream& stream);
void Fp4GroupsDequantizeCuda(const Fp4GroupsDequantizeArgs& args, Stream& stream);

// levels[i] = E2M1(u[i]): nearest even, or stochastic with words[i]. levels may be u.
void Fp4NearestLevels(const float* u, int64_t count, float* levels);
void Fp4StochasticLevels(const float* u, const uint32_t* words, int64_t count, float* levels);

// values[i] = levels[i] * scales[i / group]; group 16 or 32. values may be levels.
void Fp4ScaleLevels(const float* levels, const float* scales, int64_t count, int64_t group, float* values);

// codes[i] = E2M1 code of u[i], nearest even: of levels, their code.
void Fp4NearestCodes(const float* u, int64_t count, uint8_t* codes);

}  // namespace trainyard::kernels::internal
