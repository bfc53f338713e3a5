// Small elementwise ops and column sums. Tensors of one call have equal size; f32 or bf16; arithmetic is f32, rounded
// once to nearest even. Shapes are not looked at unless said. Outputs may alias inputs of the same dtype exactly.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

// y = a + b; one dtype.
struct AddArgs {
  TensorView a, b, y;
};
void Add(const AddArgs& args, Stream& stream);

// y = scale * x; one dtype.
struct ScaleArgs {
  TensorView x, y;
  float scale = 1;
};
void Scale(const ScaleArgs& args, Stream& stream);

// y += scale * x; x and y may differ in dtype (gradients kept in f32).
struct AccumulateArgs {
  TensorView x, y;
  float scale = 1;
};
void Accumulate(const AccumulateArgs& args, Stream& stream);

// y = value, for f32 and bf16; value 0 for any dtype.
struct FillArgs {
  TensorView y;
  float value = 0;
};
void Fill(const FillArgs& args, Stream& stream);

// y = x between any of f32 and bf16; a copy if the dtypes are equal (then any dtype). Aliases nothing unless equal.
struct ConvertArgs {
  TensorView x, y;
};
void Convert(const ConvertArgs& args, Stream& stream);

// db[c] = sum_r dy[r,c] (+ db[c] if accumulate). dy: (rows, cols) f32 or bf16; db: (cols), that dtype or f32.
// Rows are added in f32 in an order that follows from the shape (on the CPU in blocks of 64): the same bits for any
// number of threads.
struct BiasGradientArgs {
  TensorView dy, db;
  bool accumulate = true;
};
void BiasGradient(const BiasGradientArgs& args, Stream& stream);

}  // namespace trainyard::kernels
