#include <algorithm>

#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/quant/packed_rows_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kBlock = 1024;  // codes of a row at a time; a multiple of 8, so that blocks begin at a byte

TY_SIMD void KeepLowBits(const uint8_t* codes, int64_t count, uint8_t mask, uint8_t* low) {
  for (int64_t i = 0; i < count; ++i) low[i] = codes[i] & mask;
}

// Flipping the sign bit and subtracting it carries it upwards.
TY_SIMD void ExtendSign(uint8_t* codes, int64_t count, uint8_t sign) {
  for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>((codes[i] ^ sign) - sign);
}

template <typename Bits>
TY_INLINE void Select(const Bits* x, const uint8_t* keep, int64_t count, Bits* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = static_cast<Bits>(keep[i] != 0 ? x[i] : 0);
}
TY_SIMD void SelectFloats(const uint32_t* x, const uint8_t* keep, int64_t count, uint32_t* y) {
  Select(x, keep, count, y);
}
TY_SIMD void SelectBF16(const uint16_t* x, const uint8_t* keep, int64_t count, uint16_t* y) {
  Select(x, keep, count, y);
}

// Calls body(row, first column, columns, offset of the block in its packed row), rows split over the threads.
template <typename Body>
void ForBlocks(int64_t rows, int64_t cols, int bits, Stream& stream, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, 16 * kBlock / std::max<int64_t>(1, cols));
  stream.pool().ParallelFor(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t first = 0; first < cols; first += kBlock) {
        body(row, first, std::min(kBlock, cols - first), first / 8 * bits);
      }
    }
  });
}

}  // namespace

void PackRowsCpu(const PackRowsArgs& args, Stream& stream) {
  const int64_t cols = args.codes.dim(1);
  const int64_t row_bytes = args.packed.dim(1);
  const uint8_t* codes = args.codes.as<uint8_t>();
  uint8_t* packed = args.packed.as<uint8_t>();
  const uint8_t mask = static_cast<uint8_t>((1 << args.bits) - 1);
  ForBlocks(args.codes.dim(0), cols, args.bits, stream, [&](int64_t row, int64_t first, int64_t count, int64_t offset) {
    uint8_t low[kBlock];
    KeepLowBits(codes + row * cols + first, count, mask, low);
    PackCodes(low, count, args.bits, packed + row * row_bytes + offset);
  });
}

void UnpackRowsCpu(const UnpackRowsArgs& args, Stream& stream) {
  const int64_t cols = args.codes.dim(1);
  const int64_t row_bytes = args.packed.dim(1);
  const uint8_t* packed = args.packed.as<uint8_t>();
  uint8_t* codes = args.codes.as<uint8_t>();
  const uint8_t sign = static_cast<uint8_t>(1 << (args.bits - 1));
  ForBlocks(args.codes.dim(0), cols, args.bits, stream, [&](int64_t row, int64_t first, int64_t count, int64_t offset) {
    uint8_t* block = codes + row * cols + first;
    UnpackCodes(packed + row * row_bytes + offset, count, args.bits, block);
    if (args.is_signed) ExtendSign(block, count, sign);
  });
}

void MaskRowsCpu(const MaskRowsArgs& args, Stream& stream) {
  const int64_t cols = args.x.dim(1);
  const int64_t row_bytes = args.mask.dim(1);
  const uint8_t* mask = args.mask.as<uint8_t>();
  ForBlocks(args.x.dim(0), cols, 1, stream, [&](int64_t row, int64_t first, int64_t count, int64_t offset) {
    uint8_t keep[kBlock];
    UnpackCodes(mask + row * row_bytes + offset, count, 1, keep);
    const int64_t at = row * cols + first;
    if (args.x.dtype() == DType::kF32) {
      SelectFloats(static_cast<const uint32_t*>(args.x.data()) + at, keep, count,
                   static_cast<uint32_t*>(args.y.data()) + at);
    } else {
      TY_CHECK(args.x.dtype() == DType::kBF16);
      SelectBF16(static_cast<const uint16_t*>(args.x.data()) + at, keep, count,
                 static_cast<uint16_t*>(args.y.data()) + at);
    }
  });
}

}  // namespace trainyard::kernels::internal
