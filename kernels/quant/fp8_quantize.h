// FP8 with scales from the data at hand: one for a tensor (the training recipe of llm.q, shared/methods/llmq.md 2.3),
// or one for each row (the weights of ECO, shared/methods/eco.md 2.3).
//
//   scale = target / max(amax, 1e-10)      code = round(x * scale), saturating      x is represented by code * inverse
//
// inverse = max(amax, 1e-10) / target, the number a product is multiplied by. `values` holds the code's number without
// it, exact in bf16. With an amax of the data itself nothing clips: |x * scale| <= target to rounding, which saturates.
// An amax that is NaN or infinite makes what its scale stands for NaN throughout. Element by element: the same bits for
// any number of threads.
//
// `transposed` has the same codes with rows and columns exchanged, from the same pass: products of 8-bit floats want
// both operands along what they contract, so a gradient is wanted both ways.
#pragma once

#include "kernels/quant/cast.h"

namespace trainyard::kernels {

inline constexpr float kFp8Target = 448.0f;     // E4M3's largest value. llm.q uses it for E5M2 as well
inline constexpr float kE5M2Target = 57344.0f;  // the whole range of E5M2
inline constexpr float kFp8SmallestAmax = 1e-10f;

struct Fp8QuantizeArgs {
  TensorView x;     // f32 or bf16 (rows, cols); any shape with one scale
  TensorView amax;  // f32 (1), or f32 (rows): max |x| of the tensor or of each row (AbsMax)
  float target = kFp8Target;
  Rounding rounding = Rounding::kNearestEven;
  PhiloxKey random = {};  // stochastic: element i of x uses RandomWord(random, i)
  // Results, each overwritten. `codes` or `transposed` may be absent.
  TensorView codes = {};       // f8_e4m3 or f8_e5m2, as many as x
  TensorView inverse;          // f32, as many as amax; may be amax
  TensorView values = {};      // f32 or bf16, as many as x; may be x. May be absent
  TensorView transposed = {};  // the dtype of codes (cols, rows), of an x (rows, cols)
};
void Fp8Quantize(const Fp8QuantizeArgs& args, Stream& stream);

// y = code * inverse of its row (or of the tensor), one rounding to f32, then to the dtype of y.
struct Fp8DequantizeArgs {
  TensorView codes;    // f8_e4m3 or f8_e5m2 (rows, cols)
  TensorView inverse;  // f32 (1) or f32 (rows)
  TensorView y;        // f32 or bf16, overwritten
};
void Fp8Dequantize(const Fp8DequantizeArgs& args, Stream& stream);

// y[r] = inverse * sum_c codes[r,c] (+ y[r] if accumulate): a bias gradient, of the transposed codes of dy. Sums are
// f32 in an order that follows from the shape, the factor comes behind them.
struct Fp8RowSumsArgs {
  TensorView codes;    // f8_e4m3 or f8_e5m2 (rows, cols)
  TensorView inverse;  // f32 (1)
  TensorView y;        // f32 (rows)
  bool accumulate = false;
};
void Fp8RowSums(const Fp8RowSumsArgs& args, Stream& stream);

}  // namespace trainyard::kernels
