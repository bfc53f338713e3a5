#include "worker/linear/rotated_operand.h"

#include "kernels/gemm/fp4_gemm.h"
#include "kernels/gemm/gemm.h"
#include "kernels/transform/hadamard.h"
#include "kernels/transform/transpose.h"

namespace trainyard::linear {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

int64_t OperandBytes(DType storage, int64_t elements) {
  return Scratch::Bytes(DType::kF32, elements) + (storage == DType::kF32 ? 0 : Scratch::Bytes(storage, elements));
}

void MultiplyRows(const Operand& a, const Operand& b, const RowProduct& product, const Scratch& scratch,
                  Stream& stream) {
  if (!a.packed || !b.packed) {
    Gemm({.a = a.values,
          .b = b.values,
          .c = product.c,
          .transpose_b = true,
          .alpha = a.factor * b.factor,
          .beta = product.beta,
          .a_scale = a.scale,
          .b_scale = b.scale,
          .bias = product.bias,
          .workspace = scratch.Rest()},
         stream);
    return;
  }
  Fp4Gemm({.a = {.packed = a.packed, .scales = a.group_scales, .tensor_scale = a.scale},
           .b = {.packed = b.packed, .scales = b.group_scales, .tensor_scale = b.scale},
           .c = product.c,
           .alpha = a.factor * b.factor,
           .beta = product.beta,
           .bias = product.bias,
           .workspace = scratch.Rest()},
          stream);
}

void ForwardProduct(const Operand& x, const Operand& w, const kernels::LinearForwardArgs& args, const Scratch& scratch,
                    Stream& stream) {
  MultiplyRows(x, w, {.c = args.y, .bias = args.bias}, scratch, stream);
}

int64_t RotationBytes(int64_t group) {
  return Scratch::Bytes(DType::kF32, group);
}

Rotation DrawRotation(const LinearCall& call, ProductRole product, int64_t group, Scratch& scratch, Stream& stream) {
  if (group == 0) return {};
  const Rotation rotation{group, scratch.Take(DType::kF32, {group})};
  RandomSigns({.signs = rotation.signs, .random = call.Key(kernels::kRandomHadamardSign, product)}, stream);
  return rotation;
}

TensorView Rotated(const TensorView& x, Axis contracted, const Rotation& rotation, Scratch& scratch, Stream& stream) {
  if (contracted == Axis::kColumns && rotation.group == 0) return x;
  if (contracted == Axis::kColumns) {
    const TensorView v = scratch.Take(DType::kF32, {x.dim(0), x.dim(1)});
    Hadamard({.x = x, .y = v, .group = rotation.group, .signs = rotation.signs}, stream);
    return v;
  }
  const TensorView v = scratch.Take(DType::kF32, {x.dim(1), x.dim(0)});
  Transpose({.x = x, .y = v, .group = rotation.group, .signs = rotation.signs}, stream);
  return v;
}

TensorView ValuesOf(const TensorView& v, const TensorView& x, DType storage, Scratch& scratch) {
  if (v.dtype() == storage && v.data() != x.data()) return v;
  return scratch.Take(storage, {v.dim(0), v.dim(1)});
}

}  // namespace trainyard::linear
