#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/codec/random_words.h"
#include "kernels/core/simd.h"
#include "kernels/quant/coded_matrix_internal.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/number_format.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kTask = 16 * kCodeBlock;  // elements a thread takes at least

TY_SIMD void DecodeE4M3(const uint8_t* bytes, float scale, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = E4M3Value(bytes[i], scale);
}

TY_SIMD void DecodeInt4(const uint8_t* bytes, float scale, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = Int4Value(bytes[i], scale);
}

TY_SIMD void EncodeE4M3Nearest(const float* x, float inverse, int64_t count, uint8_t* bytes) {
  for (int64_t i = 0; i < count; ++i) bytes[i] = E4M3Code(x[i], inverse);
}

TY_SIMD void EncodeE4M3Stochastic(const float* x, float inverse, const uint32_t* words, int64_t count,
                                  Overflow overflow, uint8_t* bytes) {
  for (int64_t i = 0; i < count; ++i) bytes[i] = E4M3Code(x[i], inverse, words[i], overflow);
}

TY_SIMD void EncodeInt4Nearest(const float* x, float inverse, int64_t count, uint8_t* bytes) {
  for (int64_t i = 0; i < count; ++i) bytes[i] = Int4Code(x[i], inverse);
}

TY_SIMD void EncodeInt4Stochastic(const float* x, float inverse, const uint32_t* words, int64_t count, uint8_t* bytes) {
  for (int64_t i = 0; i < count; ++i) bytes[i] = Int4Code(x[i], inverse, words[i]);
}

TY_SIMD void UnpackInt4(const uint8_t* packed, int64_t pairs, uint8_t* bytes) {
  for (int64_t i = 0; i < pairs; ++i) {
    bytes[2 * i] = EvenInt4(packed[i]);
    bytes[2 * i + 1] = OddInt4(packed[i]);
  }
}

TY_SIMD void PackInt4(const uint8_t* bytes, int64_t pairs, uint8_t* packed) {
  for (int64_t i = 0; i < pairs; ++i) packed[i] = PackInt4Pair(bytes[2 * i], bytes[2 * i + 1]);
}

TY_SIMD int64_t CountBeyond(const float* x, float inverse, float limit, int64_t count) {
  int32_t beyond = 0;
  for (int64_t i = 0; i < count; ++i) beyond += std::abs(x[i] * inverse) > limit ? 1 : 0;
  return beyond;
}

}  // namespace

CodeTasks CutTasks(const CodedMatrix& matrix) {
  CodeTasks tasks;
  tasks.span = matrix.scales ? matrix.span() : kCodeBlock;
  tasks.is_long = tasks.span > kCodeBlock;
  tasks.has_one_span = tasks.is_long && matrix.scales.size() == 1;
  tasks.block = tasks.is_long ? kCodeBlock : kCodeBlock / tasks.span * tasks.span;
  const int64_t whole = tasks.is_long && !tasks.has_one_span ? tasks.span : tasks.block;  // that a task does not cut
  tasks.task = std::max<int64_t>(1, kTask / whole) * whole;
  tasks.count = (matrix.size() + tasks.task - 1) / tasks.task;
  return tasks;
}

Scale MakeScale(const CodedMatrix& matrix, float amax) {
  return MakeScale(amax, matrix.codes.dtype() == DType::kU8, matrix.scales.dtype() == DType::kF16);
}

float LoadScale(const CodedMatrix& matrix, int64_t index) {
  if (matrix.scales.dtype() == DType::kF32) return matrix.scales.as<float>()[index];
  return WidenToFloat(matrix.scales.as<Float16>()[index]);
}

void StoreScale(float scale, const CodedMatrix& matrix, int64_t index) {
  if (matrix.scales.dtype() == DType::kF32) {
    matrix.scales.as<float>()[index] = scale;
  } else {
    matrix.scales.as<Float16>()[index] = RoundNearest<Float16>(scale);  // exact: MakeScale has rounded it
  }
}

// As bits, so that NaN is larger than all else.
TY_SIMD float MagnitudeOfLargest(const float* x, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t magnitude = __builtin_bit_cast(uint32_t, x[i]) & 0x7FFFFFFF;
    largest = magnitude > largest ? magnitude : largest;
  }
  return __builtin_bit_cast(float, largest);
}

const uint8_t* LoadCodes(const CodedMatrix& matrix, int64_t begin, int64_t count, uint8_t* buffer) {
  const auto* const stored = static_cast<const uint8_t*>(matrix.codes.data());
  if (matrix.codes.dtype() == DType::kF8E4M3) return stored + begin;
  UnpackInt4(stored + begin / 2, count / 2, buffer);
  return buffer;
}

void StoreCodes(const uint8_t* bytes, const CodedMatrix& matrix, int64_t begin, int64_t count) {
  auto* const stored = static_cast<uint8_t*>(matrix.codes.data());
  if (matrix.codes.dtype() == DType::kF8E4M3) {
    std::memcpy(stored + begin, bytes, static_cast<size_t>(count));
  } else {
    PackInt4(bytes, count / 2, stored + begin / 2);
  }
}

void Decode(DType format, const uint8_t* bytes, float scale, int64_t count, float* y) {
  (format == DType::kU8 ? DecodeInt4 : DecodeE4M3)(bytes, scale, count, y);
}

void Encode(DType format, const float* x, const Scale& scale, const uint32_t* words, int64_t count, uint8_t* bytes) {
  if (format == DType::kU8) {
    if (words == nullptr) return EncodeInt4Nearest(x, scale.inverse, count, bytes);
    return EncodeInt4Stochastic(x, scale.inverse, words, count, bytes);
  }
  if (words == nullptr) return EncodeE4M3Nearest(x, scale.inverse, count, bytes);
  return EncodeE4M3Stochastic(x, scale.inverse, words, count, Overflow::kSaturate, bytes);
}

int64_t CountClipped(DType format, const float* x, float inverse, int64_t count) {
  return CountBeyond(x, inverse, LargestCode(format == DType::kU8) * 1.000001f, count);
}

void EncodeMatrixCpu(const EncodeMatrixArgs& args, Stream& stream) {
  const CodedMatrix& matrix = args.matrix;
  const DType format = matrix.codes.dtype();
  const auto largest = [&](int64_t begin, int64_t count) {
    float buffer[kFloatBlock];
    return MagnitudeOfLargest(LoadFloats(args.x, begin, count, buffer), count);
  };
  ForCodeBlocks(matrix, stream, largest, [&](int64_t, int64_t begin, int64_t count, const Scale* known) {
    float loaded[kFloatBlock];
    const float* const x = LoadFloats(args.x, begin, count, loaded);
    if (format == DType::kF32) {
      std::memmove(matrix.codes.as<float>() + begin, x, static_cast<size_t>(count) * sizeof(float));
      return;
    }
    uint32_t buffer[RandomBufferWords(kCodeBlock)];
    const uint32_t* const words = args.rounding == Rounding::kStochastic
                                      ? RandomWords(args.random, static_cast<uint64_t>(begin), count, buffer)
                                      : nullptr;
    uint8_t bytes[kCodeBlock];
    const int64_t part = known != nullptr ? count : matrix.span();
    for (int64_t at = 0; at < count; at += part) {
      const Scale scale = known != nullptr ? *known : MakeScale(matrix, MagnitudeOfLargest(x + at, part));
      if (known == nullptr) StoreScale(scale.value, matrix, (begin + at) / part);
      Encode(format, x + at, scale, words == nullptr ? nullptr : words + at, part, bytes + at);
    }
    StoreCodes(bytes, matrix, begin, count);
  });
}

void DecodeMatrixCpu(const DecodeMatrixArgs& args, Stream& stream) {
  const CodedMatrix& matrix = args.matrix;
  const DType format = matrix.codes.dtype();
  const CodeTasks tasks = CutTasks(matrix);
  stream.pool().ParallelFor(tasks.count, 1, [&](int64_t first, int64_t last) {
    const int64_t end = std::min(matrix.size(), last * tasks.task);
    for (int64_t begin = first * tasks.task, count; begin < end; begin += count) {
      count = std::min(tasks.block, end - begin);
      if (tasks.is_long) count = std::min(count, tasks.span - begin % tasks.span);
      float buffer[kFloatBlock];
      float* const y = FloatsOf(args.y, begin, buffer);
      if (format == DType::kF32) {
        std::memmove(y, matrix.codes.as<float>() + begin, static_cast<size_t>(count) * sizeof(float));
      } else {
        uint8_t unpacked[kCodeBlock];
        const uint8_t* const bytes = LoadCodes(matrix, begin, count, unpacked);
        const int64_t part = std::min(count, tasks.span);
        for (int64_t at = 0; at < count; at += part) {
          Decode(format, bytes + at, LoadScale(matrix, (begin + at) / tasks.span), part, y + at);
        }
      }
      StoreFloats(y, args.y, begin, count);
    }
  });
}

}  // namespace trainyard::kernels::internal
