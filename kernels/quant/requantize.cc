#include "kernels/quant/requantize.h"

#include "kernels/quant/abs_max.h"
#include "kernels/transform/transpose.h"

namespace trainyard::kernels {

void Requantize(const RequantizeArgs& args, Stream& stream) {
  TensorView operand = args.operand;
  if (!operand) {
    operand = args.dequantized;
    Fp4GroupsDequantize({.packed = args.packed, .scales = args.scales, .values = operand}, stream);
  }
  Transpose({.x = operand, .y = args.rotated, .group = args.group, .signs = args.signs}, stream);
  if (const auto* mx = std::get_if<MxFormat>(&args.format)) {
    return MxQuantize({.v = args.rotated,
                       .format = *mx,
                       .random = args.random,
                       .packed = args.result_packed,
                       .scales = args.result_scales,
                       .values = args.result_values},
                      stream);
  }
  AbsMax({.x = args.rotated, .y = args.amax}, stream);
  NvQuantize({.x = args.rotated,
              .amax = args.amax,
              .format = std::get<NvFormat>(args.format),
              .random = args.random,
              .tensor_scale = args.tensor_scale,
              .packed = args.result_packed,
              .scales = args.result_scales,
              .values = args.result_values},
             stream);
}

}  // namespace trainyard::kernels
