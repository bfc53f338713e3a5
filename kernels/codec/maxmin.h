// Maxmin codes: each bucket is cut evenly between its extremes (torch_cgx; shared/methods/quantized-comm.md 2.1, 2.2).
//
//   S = 2^bits - 1, unit = (max - min) / S, position p = (x - min) / unit
//   code = floor(p) + [draw < p - floor(p)], at most S       stochastic: unbiased, E err^2 = unit^2 f (1 - f)
//                                                            nearest: draw just below 1/2
//   value = fma(unit, code, min)
//
// Wire (bucket_wire.h): a pair (unit, min) of f32 a bucket, then codes of `bits` bits.
// A constant bucket decodes exactly; a bucket with a NaN or infinity, or a range beyond the largest float, decodes to
// NaN throughout. No absolute threshold: 2^k x gives the same codes and 2^k times the values, while unit stays normal.
#pragma once

#include "kernels/codec/bucket_wire.h"
#include "kernels/codec/code.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct MaxminFormat {
  int bits = 4;               // 1..8
  int64_t bucket_size = 512;  // 64..8192, a multiple of 8

  BucketWire WireOf(int64_t elements) const { return {elements, bucket_size, bits, sizeof(MaxminBucket)}; }
};

struct MaxminEncodeArgs {
  TensorView x;     // f32 (n)
  TensorView wire;  // u8, at least format.WireOf(n).bytes(), which are overwritten; any alignment
  MaxminFormat format;
  CodeRounding rounding = CodeRounding::kStochastic;
  PhiloxKey random = {};      // stochastic: element i of x draws RandomWord(random, first_element + i)
  int64_t first_element = 0;  // number of x's first element in its tensor; any
};
void MaxminEncode(const MaxminEncodeArgs& args, Stream& stream);

struct MaxminDecodeArgs {
  TensorView wire;
  TensorView y;  // f32 (n), overwritten
  MaxminFormat format;
};
void MaxminDecode(const MaxminDecodeArgs& args, Stream& stream);

// What rounding x will lose, without drawing: sum unit^2 f (1 - f) over all elements (the expectation), nearest: sum
// unit^2 min(f, 1 - f)^2. In f64, the same bits for any number of threads. NaN if a value is not finite. Waits.
struct MaxminErrorArgs {
  TensorView x;  // f32 (n)
  MaxminFormat format;
  CodeRounding rounding = CodeRounding::kStochastic;
};
double MaxminSquaredError(const MaxminErrorArgs& args, Stream& stream);

}  // namespace trainyard::kernels
