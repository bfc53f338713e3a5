// One bit a value: its sign, and the mean magnitude of its bucket (1-bit SGD with the contraction of EF-signSGD).
//
//   value = (x < 0 ? -1 : 1) * mean |bucket|; zeros count as positive
//
// Biased, |x - value|^2 <= (1 - 1/n)|x|^2 (Gaussian data: (1 - 2/pi)|x|^2): wants error feedback. Nothing is drawn.
// Wire (bucket_wire.h): the mean, f32, a bucket, then sign bits. A bucket of zeros decodes to zeros; one with a NaN or
// infinity decodes to NaN throughout.
#pragma once

#include "kernels/codec/bucket_wire.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct SignMeanFormat {
  int64_t bucket_size = 512;  // 64..8192, a multiple of 8

  BucketWire WireOf(int64_t elements) const { return {elements, bucket_size, 1, sizeof(float)}; }
};

struct SignMeanEncodeArgs {
  TensorView x;     // f32 (n)
  TensorView wire;  // u8, at least format.WireOf(n).bytes(), which are overwritten; any alignment
  SignMeanFormat format;
};
void SignMeanEncode(const SignMeanEncodeArgs& args, Stream& stream);

struct SignMeanDecodeArgs {
  TensorView wire;
  TensorView y;  // f32 (n), overwritten
  SignMeanFormat format;
};
void SignMeanDecode(const SignMeanDecodeArgs& args, Stream& stream);

}  // namespace trainyard::kernels
