// Casts between f32 and the narrow floats bf16, fp16, E4M3 and E5M2 (OCP 8-bit formats, arXiv:2209.05433).
//
//   Narrow: y = round(x * scale)      x f32 or bf16; y bf16, fp16, e4m3 or e5m2
//   Widen:  y = x * scale, exactly rounded to f32        x any narrow dtype; y f32
//
// One value at a time: number_format.h, where the rounding rules and special values are described.
#pragma once

#include "kernels/core/philox.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/quant/number_format.h"

namespace trainyard::kernels {

enum class Rounding { kNearestEven, kStochastic };

struct NarrowArgs {
  TensorView x, y;  // equal size
  float scale = 1;
  Rounding rounding = Rounding::kNearestEven;
  Overflow overflow = Overflow::kSaturate;
  PhiloxKey random = {};  // stochastic: element i uses RandomWord(random, i), whatever the number of threads
};
void Narrow(const NarrowArgs& args, Stream& stream);

struct WidenArgs {
  TensorView x, y;
  float scale = 1;
};
void Widen(const WidenArgs& args, Stream& stream);

}  // namespace trainyard::kernels
