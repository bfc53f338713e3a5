// Codes of a sign and a level: QSGD, NUQSGD and ALQ with their tables (shared/methods/qoda.md 2.2).
//
//   norm = |bucket|_q, u = |x| / norm, l_j <= u <= l_{j+1}: the index is j + 1 with probability (u - l_j)/(l_{j+1} -
//   l_j), else j; value = sign(x) * l_index * norm. Unbiased, variance norm^2 (l_{j+1} - u)(u - l_j).
//
// Wire (bucket_wire.h): the norm, f32, a bucket, then codes of LevelBits bits: the sign above the index. Zero has no
// sign. The table does not travel: both sides know it.
// A bucket of zeros decodes to zeros; one with a NaN or infinity decodes to NaN throughout.
#pragma once

#include "absl/types/span.h"
#include "kernels/codec/bucket_wire.h"
#include "kernels/codec/code.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

enum class LevelNorm { kL2, kLInf };

inline constexpr int kMostLevels = 128;

// 1 sign bit and as many as the index of `levels` values needs.
inline int LevelBits(size_t levels) {
  int bits = 1;
  while ((size_t{1} << (bits - 1)) < levels) ++bits;
  return bits;
}

struct LevelFormat {
  absl::Span<const float> levels;  // 2..kMostLevels, strictly increasing, the first exactly 0, the last exactly 1
  LevelNorm norm = LevelNorm::kLInf;
  int64_t bucket_size = 512;  // 64..8192, a multiple of 8

  BucketWire WireOf(int64_t elements) const { return {elements, bucket_size, LevelBits(levels.size()), sizeof(float)}; }
};

struct LevelEncodeArgs {
  TensorView x;     // f32 (n)
  TensorView wire;  // u8, at least format.WireOf(n).bytes(), which are overwritten; any alignment
  LevelFormat format;
  PhiloxKey random;           // element i of x draws RandomWord(random, first_element + i)
  int64_t first_element = 0;  // number of x's first element in its tensor; any
};
void LevelEncode(const LevelEncodeArgs& args, Stream& stream);

struct LevelDecodeArgs {
  TensorView wire;
  TensorView y;  // f32 (n), overwritten
  LevelFormat format;
};
void LevelDecode(const LevelDecodeArgs& args, Stream& stream);

// The norm of one bucket; NaN if a value is not finite. What LevelEncode and the histogram divide by.
float BucketNorm(const float* x, int64_t count, LevelNorm norm);

}  // namespace trainyard::kernels
