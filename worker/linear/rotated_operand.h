// What the schemes in FP4 share (quartet.md 2.4, quartet2.md 2.6): operands of emulated products, rotated along the
// axis that is contracted, and the random streams of a layer.
//
//   dx = (dy H S) (w^T H S)^T        contracts over the outputs
//   dw = (dy^T H S) (x^T H S)^T      contracts over the rows
//
// "H S": signs first, then Hadamard over runs of a group. Both operands of a product have the same signs, so that the
// rotation cancels in it; the two products have signs of their own, and new ones for every call.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "worker/linear/linear_scheme.h"
#include "worker/linear/scratch.h"

namespace trainyard::linear {

// Roles of a site's random numbers (LinearCall::Key): with kRandomQuantize the operand that is quantized, with
// kRandomHadamardSign the product whose operands are rotated.
enum OperandRole : uint32_t {
  kForwardInput,
  kForwardWeight,
  kDyForInput,
  kWeightForInput,
  kDyForWeight,
  kInputForWeight
};
enum ProductRole : uint32_t { kInputGradient, kWeightGradient };

// One side of a product: op = factor * scale * values, values in the storage dtype. `scale` is one f32 that a quantizer
// has made and that stays where it is; absent: 1. An operand of NVFP4 that goes into a product and nowhere else may
// have codes and the scales of their groups (kernels/gemm/fp4_gemm.h) in place of values.
struct Operand {
  kernels::TensorView values;
  float factor = 1;
  kernels::TensorView mask = {};  // of a forward operand: where its gradient passes; absent: everywhere
  kernels::TensorView scale = {};
  kernels::TensorView packed = {}, group_scales = {};
};

// What an operand of so many elements takes of the scratch: room for its rotated values in f32, and, if those are not
// its values in the end, for the rounded ones.
int64_t OperandBytes(kernels::DType storage, int64_t elements);

struct RowProduct {
  kernels::TensorView c;
  float beta = 0;
  kernels::TensorView bias = {};  // optional
};
// c = a b^T + beta c + bias: both operands have codes, or both have values.
void MultiplyRows(const Operand& a, const Operand& b, const RowProduct& product, const Scratch& scratch,
                  kernels::Stream& stream);

// The product of a forward, y = x w^T + bias, of operands that stand for args.x and args.w.
void ForwardProduct(const Operand& x, const Operand& w, const kernels::LinearForwardArgs& args, const Scratch& scratch,
                    kernels::Stream& stream);

struct Rotation {
  int64_t group = 0;               // 0: none
  kernels::TensorView signs = {};  // f32 (group)
};
// The rotation of one product of this call, its signs drawn into the scratch.
Rotation DrawRotation(const LinearCall& call, ProductRole product, int64_t group, Scratch& scratch,
                      kernels::Stream& stream);
int64_t RotationBytes(int64_t group);

enum class Axis { kRows, kColumns };  // which one is contracted
// x with the contracted axis last, rotated: f32 in the scratch. x itself if there is nothing to do.
kernels::TensorView Rotated(const kernels::TensorView& x, Axis contracted, const Rotation& rotation, Scratch& scratch,
                            kernels::Stream& stream);

// Where the quantizer of v = Rotated(x) may put values of the dtype `storage`: in place if it can be.
kernels::TensorView ValuesOf(const kernels::TensorView& v, const kernels::TensorView& x, kernels::DType storage,
                             Scratch& scratch);

}  // namespace trainyard::linear
