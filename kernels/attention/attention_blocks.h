// What the forward and the backward of attention share: the block sizes, the place of a head in packed rows, and tasks
// with scratch. Internal to kernels/attention.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>

#include "kernels/attention/attention.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {

// A strip of scores is kQueryBlock x kKeyBlock floats: 64 KiB, so two of them and the keys they meet stay in a level 2
// cache, while each matrix product is large enough to run near the library's full rate. kKeyBlock is a multiple of
// kQueryBlock, so every strip that is computed has at least one unmasked score in each row.
inline constexpr int64_t kQueryBlock = 64;
inline constexpr int64_t kKeyBlock = 256;

// Partial sums and maxima of a row: twice kLanes, since GCC unrolls loops of 16 before it vectorises them and then
// fails at half of them (measured: a maximum over floats at 1.5 instead of 20 G/s).
inline constexpr int64_t kRowLanes = 2 * kLanes;
static_assert(kKeyBlock % kQueryBlock == 0 && kKeyBlock % kRowLanes == 0);

// Floats, rounded up to whole lanes.
inline int64_t Padded(int64_t floats) {
  return (floats + kRowLanes - 1) / kRowLanes * kRowLanes;
}

inline float ScoreScale(float scale, const AttentionShape& shape) {
  return scale != 0.0f ? scale : 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
}

// Rows of one head inside larger rows.
template <typename T>
struct HeadRows {
  T* data;
  int64_t stride;

  T* row(int64_t r) const { return data + r * stride; }
  HeadRows From(int64_t r) const { return {row(r), stride}; }
};

// The heads of one sequence in packed rows.
template <typename T>
HeadRows<T> QueryHead(T* packed, const AttentionShape& s, int64_t b, int64_t head) {
  return {packed + b * s.seq * s.packed_width() + head * s.head_dim, s.packed_width()};
}
template <typename T>
HeadRows<T> KeyHead(T* packed, const AttentionShape& s, int64_t b, int64_t kv_head) {
  return QueryHead(packed, s, b, s.q_heads + kv_head);
}
template <typename T>
HeadRows<T> ValueHead(T* packed, const AttentionShape& s, int64_t b, int64_t kv_head) {
  return QueryHead(packed, s, b, s.q_heads + s.kv_heads + kv_head);
}
// A head of o or dout.
template <typename T>
HeadRows<T> OutputHead(T* o, const AttentionShape& s, int64_t b, int64_t head) {
  return {o + b * s.seq * s.q_heads * s.head_dim + head * s.head_dim, s.q_heads * s.head_dim};
}

// The rows as floats: where they are if they are floats already, else widened into `scratch` (rows * cols).
HeadRows<const float> AsFloats(HeadRows<const float> x, int64_t rows, int64_t cols, float* scratch);
HeadRows<const float> AsFloats(HeadRows<const BFloat16> x, int64_t rows, int64_t cols, float* scratch);

// Stores dense float rows, each multiplied by its factor, rounded to the storage.
void StoreRows(const float* x, const float* factors, int64_t rows, int64_t cols, HeadRows<float> y);
void StoreRows(const float* x, const float* factors, int64_t rows, int64_t cols, HeadRows<BFloat16> y);

template <typename T>
TY_INLINE float RowDot(const T* x, const T* y, int64_t n) {
  float lanes[kRowLanes] = {};
  const int64_t whole = n / kRowLanes * kRowLanes;
  for (int64_t i = 0; i < whole; i += kRowLanes) {
    for (int64_t lane = 0; lane < kRowLanes; ++lane) lanes[lane] += ToFloat(x[i + lane]) * ToFloat(y[i + lane]);
  }
  for (int64_t i = whole; i < n; ++i) lanes[i - whole] += ToFloat(x[i]) * ToFloat(y[i]);
  float sum = 0.0f;
  for (int64_t lane = 0; lane < kRowLanes; ++lane) sum += lanes[lane];
  return sum;
}

// Unmasked scores in row r of a strip whose first query is `q_begin` and first key `k_begin`.
inline int64_t UnmaskedKeys(int64_t q_begin, int64_t k_begin, int64_t keys, int64_t r) {
  return std::min(keys, q_begin + r - k_begin + 1);
}

// Calls body(task, scratch) for every task; a thread takes the next task when it is done with one and uses
// `floats_per_thread` of scratch of its own. The order does not show in results: tasks write to different places.
template <typename Body>
void ForTasks(Stream& stream, int64_t tasks, float* scratch, int64_t floats_per_thread, const Body& body) {
  std::atomic<int64_t> next{0};
  stream.pool().ParallelFor(stream.threads(), 1, [&](int64_t slot, int64_t) {
    while (true) {
      const int64_t task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks) return;
      body(task, scratch + slot * floats_per_thread);
    }
  });
}

}  // namespace trainyard::kernels::internal
