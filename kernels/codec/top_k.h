// The k values of largest magnitude and where they are; everything else becomes 0. Exact; of equal magnitudes the ones
// with the lowest indices go first. Biased: wants error feedback.
//
// Wire: k indices, u32, increasing, then their k values, f32, both unaligned. k is a function of the length, so no
// count travels. If any of the n values is not finite, all decode to NaN.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

// density * elements to the nearest whole number, at least 1 (of nothing: 0). density in (0, 1].
int64_t TopKCount(int64_t elements, double density);

inline constexpr int64_t TopKBytes(int64_t k) {
  return 8 * k;
}

// What a CUDA stream needs to select with, whatever the length. The CPU needs nothing.
inline constexpr int64_t kTopKWorkspaceBytes = 12 << 10;

struct TopKEncodeArgs {
  TensorView x;                         // f32 (n), n < 2^32
  TensorView wire;                      // u8, at least TopKBytes(k), which are overwritten
  int64_t k = 0;                        // 1..n; 0 if n = 0
  TensorView workspace = TensorView();  // u8, kTopKWorkspaceBytes, aligned to 8 bytes; on CUDA streams only
};
void TopKEncode(const TopKEncodeArgs& args, Stream& stream);

// An index beyond n, which only a damaged wire has, aborts on the CPU; on a CUDA stream all decode to NaN.
struct TopKDecodeArgs {
  TensorView wire;
  TensorView y;  // f32 (n), overwritten
  int64_t k = 0;
};
void TopKDecode(const TopKDecodeArgs& args, Stream& stream);

}  // namespace trainyard::kernels
