// The FP8 recipe of llm.q (shared/methods/llmq.md 2.3; docs/methods/fp8.md): all three products of a layer from
// operands in 8-bit floats, each with one scale made from its own largest magnitude at hand (current scaling).
//
//   q(v) = v as code * inverse, code = FP8(v * 448 / amax(v))       inputs and weights E4M3, dy E4M3 or E5M2
//   y = q(x) q(w)^T + bias      dx = q(dy) q(w)      dw = q(dy)^T q(x)      db = sum of q(dy)
//
// On the CPU the products are emulated: codes as numbers of the storage dtype, which holds them exactly, sums in f32,
// the scales behind the product. On a device they are products of the codes (kernels/gemm/fp8_gemm.h), which want both
// operands along what they contract: the backward quantizes dy both ways in one pass, x and w transposed. The scales
// stay on the device. The same products of the same numbers, up to the order of sums. Any sizes.
#pragma once

#include <memory>

#include "proto/spec/linear_options.h"
#include "worker/linear/linear_scheme.h"

namespace trainyard::linear {

std::unique_ptr<LinearScheme> MakeFp8Scheme(const spec::LinearFp8& options);

}  // namespace trainyard::linear
