// Codes and scales of coded_matrix.h a block at a time: what the op itself and the optimizers that keep no other
// weights (kernels/optim/eco) share.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/quant/coded_matrix.h"
#include "kernels/quant/coded_matrix_formula.h"

namespace trainyard::kernels::internal {

void EncodeMatrixCpu(const EncodeMatrixArgs& args, Stream& stream);
void DecodeMatrixCpu(const DecodeMatrixArgs& args, Stream& stream);
void EncodeMatrixCuda(const EncodeMatrixArgs& args, Stream& stream);
void DecodeMatrixCuda(const DecodeMatrixArgs& args, Stream& stream);

inline constexpr int64_t kCodeBlock = 512;  // elements at a time

// How a matrix is cut for threads, by its shape alone. A block holds whole spans or is part of a longer one.
struct CodeTasks {
  int64_t span = 0;           // elements of one scale; a block's length for what has no scales
  int64_t block = 0;          // elements of a block, at most kCodeBlock
  int64_t task = 0;           // elements of a task: whole spans, unless there is but one
  int64_t count = 0;          // of tasks
  bool is_long = false;       // spans are longer than a block
  bool has_one_span = false;  // and there is but one
};
CodeTasks CutTasks(const CodedMatrix& matrix);

// For a span whose largest magnitude is `amax`, rounded as `scales` stores it.
Scale MakeScale(const CodedMatrix& matrix, float amax);
float LoadScale(const CodedMatrix& matrix, int64_t index);
void StoreScale(float scale, const CodedMatrix& matrix, int64_t index);

// NaN if there is one.
float MagnitudeOfLargest(const float* x, int64_t count);

// Elements [begin, begin + count) as bytes, an INT4 code as an int8_t. E4M3: the matrix's own memory. begin is even.
const uint8_t* LoadCodes(const CodedMatrix& matrix, int64_t begin, int64_t count, uint8_t* buffer);
void StoreCodes(const uint8_t* bytes, const CodedMatrix& matrix, int64_t begin, int64_t count);

// y = code * scale.
void Decode(DType format, const uint8_t* bytes, float scale, int64_t count, float* y);
// The other way; `words`, one an element, or null for rounding to nearest. bytes and x may not overlap.
void Encode(DType format, const float* x, const Scale& scale, const uint32_t* words, int64_t count, uint8_t* bytes);
// How many lie beyond the largest code by more than the rounding of x * inverse.
int64_t CountClipped(DType format, const float* x, float inverse, int64_t count);

// Of floats that are not negative the order is that of their bits, with NaN above all. Functions: the front end of nvcc
// 13.0 fails on the casts themselves inside a template.
inline uint32_t BitsOf(float x) {
  return __builtin_bit_cast(uint32_t, x);
}
inline float FloatOf(uint32_t bits) {
  return __builtin_bit_cast(float, bits);
}

// Calls body(task, begin, count, known) for every block of the matrix. Of a span longer than a block, `known` is the
// new scale: made from largest(begin, count) of the span's blocks, and stored when the span's blocks are done; of
// shorter spans it is null, and the body makes and stores the scales.
template <typename Largest, typename Body>
void ForCodeBlocks(const CodedMatrix& matrix, Stream& stream, const Largest& largest, const Body& body) {
  const CodeTasks tasks = CutTasks(matrix);
  const int64_t size = matrix.size();
  const auto largest_of = [&](int64_t begin, int64_t end) {
    uint32_t bits = 0;  // of a float that is not negative: ordered as it is, and NaN above all
    for (int64_t at = begin; at < end; at += tasks.block) {
      bits = std::max(bits, BitsOf(largest(at, std::min(tasks.block, end - at))));
    }
    return bits;
  };
  Scale only;
  if (tasks.has_one_span) {
    std::atomic<uint32_t> bits{0};
    stream.pool().ParallelFor(tasks.count, 1, [&](int64_t first, int64_t last) {
      const uint32_t here = largest_of(first * tasks.task, std::min(size, last * tasks.task));
      uint32_t seen = bits.load(std::memory_order_relaxed);
      while (seen < here && !bits.compare_exchange_weak(seen, here, std::memory_order_relaxed)) {
      }
    });
    only = MakeScale(matrix, FloatOf(bits.load()));
  }
  stream.pool().ParallelFor(tasks.count, 1, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t end = std::min(size, (task + 1) * tasks.task);
      const bool has_own_spans = tasks.is_long && !tasks.has_one_span;
      for (int64_t begin = task * tasks.task, stop; begin < end; begin = stop) {
        stop = has_own_spans ? begin + tasks.span : end;
        const Scale known = has_own_spans ? MakeScale(matrix, FloatOf(largest_of(begin, stop))) : only;
        for (int64_t at = begin; at < stop; at += tasks.block) {
          body(task, at, std::min(tasks.block, stop - at), tasks.is_long ? &known : nullptr);
        }
        if (has_own_spans) StoreScale(known.value, matrix, begin / tasks.span);
      }
    }
  });
  if (tasks.has_one_span) StoreScale(only.value, matrix, 0);
}

}  // namespace trainyard::kernels::internal
