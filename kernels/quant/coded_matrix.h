// Weights that exist as codes and scales only: the storage of ECO (shared/methods/eco.md 2.3), E4M3 or INT4.
//
//   value = code * scale of the code's span                  one product in f32, then to the dtype of the reader
//   scale = max |x| / largest code, over the span            so nothing clips
//   code  = x / scale, rounded to nearest or stochastically to the grid of the format
//
// Codes, as many as n elements, row after row:
//   f8_e4m3 (n)     E4M3; largest 448
//   u8 (n / 2)      INT4, -7 .. 7 in two's complement, element 2 i in the low half of byte i; n is even
//   f32 (n)         no code at all: the values themselves, for what is measured against the others. No scales
// Scales s of them, f32 or f16, each of n / s elements in a run: 1 for the tensor, or its rows, or groups of a row.
// An f16 scale is rounded up, so that it clips nothing either. A span of zeros (to 2^-126) has scale 0. What is not
// finite makes its span NaN.
#pragma once

#include <cstdint>

#include "kernels/core/philox.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/quant/cast.h"

namespace trainyard::kernels {

struct CodedMatrix {
  TensorView codes, scales;

  explicit operator bool() const { return static_cast<bool>(codes); }
  int64_t size() const { return codes.dtype() == DType::kU8 ? 2 * codes.size() : codes.size(); }  // elements
  int64_t span() const { return scales ? size() / scales.size() : size(); }                       // of one scale
};

// Aborts if the dtypes and sizes are none of the above.
void CheckCodedMatrix(const CodedMatrix& matrix);

// Scales from the data, then codes. The same bits for any number of threads.
struct EncodeMatrixArgs {
  TensorView x;        // f32 or bf16
  CodedMatrix matrix;  // overwritten
  Rounding rounding = Rounding::kNearestEven;
  PhiloxKey random = {};  // stochastic: element i of x uses RandomWord(random, i)
};
void EncodeMatrix(const EncodeMatrixArgs& args, Stream& stream);

struct DecodeMatrixArgs {
  CodedMatrix matrix;
  TensorView y;  // f32 or bf16 (rounded to nearest even), overwritten
};
void DecodeMatrix(const DecodeMatrixArgs& args, Stream& stream);

}  // namespace trainyard::kernels
