#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/embed/embedding_internal.h"

namespace trainyard::kernels::internal {
namespace {

using Entry = EmbeddingEntry;

// Sorts by token, keeping the order of rows, by radix passes over 11 bits; returns the list that holds the result.
Entry* SortByToken(Entry* entries, Entry* spare, int64_t count, int64_t vocab_size) {
  constexpr int kCpuDigitBits = 11;
  for (int shift = 0; (vocab_size - 1) >> shift > 0; shift += kCpuDigitBits) {
    uint32_t starts[1 << kCpuDigitBits] = {};
    const auto digit = [shift](Entry entry) { return (entry >> (32 + shift)) & ((1u << kCpuDigitBits) - 1); };
    for (int64_t i = 0; i < count; ++i) ++starts[digit(entries[i])];
    uint32_t next = 0;
    for (uint32_t& start : starts) next += std::exchange(start, next);
    for (int64_t i = 0; i < count; ++i) spare[starts[digit(entries[i])]++] = entries[i];
    std::swap(entries, spare);
  }
  return entries;
}

// dtable[token, :] += the rows of `run`, all of that token, in order.
template <typename T, typename D>
TY_INLINE void AddRun(const Entry* run, int64_t count, const T* dy, D* dtable, int64_t cols) {
  constexpr int64_t kBlock = 256;
  float sums[kBlock];
  D* out = dtable + TokenOf(run[0]) * cols;
  for (int64_t first = 0; first < cols; first += kBlock) {
    const int64_t width = std::min(kBlock, cols - first);
    for (int64_t c = 0; c < width; ++c) sums[c] = 0;
    for (int64_t i = 0; i < count; ++i) {
      const T* row = dy + RowOf(run[i]) * cols + first;
      for (int64_t c = 0; c < width; ++c) sums[c] += ToFloat(row[c]);
    }
    for (int64_t c = 0; c < width; ++c) out[first + c] = FromFloat<D>(ToFloat(out[first + c]) + sums[c]);
  }
}

TY_SIMD void AddRunF32(const Entry* run, int64_t count, const float* dy, float* dtable, int64_t cols) {
  AddRun(run, count, dy, dtable, cols);
}
TY_SIMD void AddRunBF16(const Entry* run, int64_t count, const BFloat16* dy, BFloat16* dtable, int64_t cols) {
  AddRun(run, count, dy, dtable, cols);
}
TY_SIMD void AddRunBF16ToF32(const Entry* run, int64_t count, const BFloat16* dy, float* dtable, int64_t cols) {
  AddRun(run, count, dy, dtable, cols);
}

}  // namespace

void EmbeddingForwardCpu(const EmbeddingForwardArgs& args, Stream& stream) {
  const int32_t* tokens = args.tokens.as<int32_t>();
  const int64_t vocab_size = args.table.dim(0);
  const size_t row_bytes = static_cast<size_t>(args.table.dim(1)) * SizeOf(args.table.dtype());
  const char* table = static_cast<const char*>(args.table.data());
  char* y = static_cast<char*>(args.y.data());
  stream.pool().ParallelFor(args.tokens.size(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      TY_CHECK_GE(tokens[r], 0);
      TY_CHECK_LT(tokens[r], vocab_size);
      std::memcpy(y + static_cast<size_t>(r) * row_bytes, table + static_cast<size_t>(tokens[r]) * row_bytes,
                  row_bytes);
    }
  });
}

void EmbeddingBackwardCpu(const EmbeddingBackwardArgs& args, Stream& stream) {
  const int32_t* tokens = args.tokens.as<int32_t>();
  const int64_t count = args.tokens.size();
  const int64_t vocab_size = args.dtable.dim(0);
  const int64_t cols = args.dtable.dim(1);
  Entry* entries = static_cast<Entry*>(args.workspace.data());
  for (int64_t r = 0; r < count; ++r) {
    TY_CHECK_GE(tokens[r], 0);
    TY_CHECK_LT(tokens[r], vocab_size);
    entries[r] = MakeEntry(tokens[r], r);
  }
  const Entry* sorted = SortByToken(entries, entries + count, count, vocab_size);

  const auto run_all = [&](auto add_run, auto* dy, auto* dtable) {
    // A run belongs to the range in which it begins.
    stream.pool().ParallelFor(count, 64, [&](int64_t begin, int64_t end) {
      int64_t i = begin;
      while (i < end && i > 0 && TokenOf(sorted[i]) == TokenOf(sorted[i - 1])) ++i;
      while (i < end) {
        int64_t last = i + 1;
        while (last < count && TokenOf(sorted[last]) == TokenOf(sorted[i])) ++last;
        add_run(sorted + i, last - i, dy, dtable, cols);
        i = last;
      }
    });
  };
  if (args.dy.dtype() == DType::kF32) return run_all(AddRunF32, args.dy.as<float>(), args.dtable.as<float>());
  if (args.dtable.dtype() == DType::kF32) {
    return run_all(AddRunBF16ToF32, args.dy.as<BFloat16>(), args.dtable.as<float>());
  }
  run_all(AddRunBF16, args.dy.as<BFloat16>(), args.dtable.as<BFloat16>());
}

}  // namespace trainyard::kernels::internal
