#include "kernels/core/launch.h"
#include "kernels/quant/chunk.h"
#include "kernels/quant/packed_rows_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kChunk = 8;  // codes a thread: they fill whole bytes

// The lowest `count` bytes of a word, at once where that is a power of two and they lie aligned.
__device__ inline void StoreBytes(uint64_t word, int64_t count, uint8_t* to) {
  if (count == 8 && IsAligned<uint64_t>(to)) {
    *reinterpret_cast<uint64_t*>(to) = word;
  } else if (count == 4 && IsAligned<uint32_t>(to)) {
    *reinterpret_cast<uint32_t*>(to) = static_cast<uint32_t>(word);
  } else if (count == 2 && IsAligned<uint16_t>(to)) {
    *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(word);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<uint8_t>(word >> (8 * i));
  }
}

__device__ inline uint64_t LoadBytes(const uint8_t* from, int64_t count) {
  if (count == 8 && IsAligned<uint64_t>(from)) return *reinterpret_cast<const uint64_t*>(from);
  if (count == 4 && IsAligned<uint32_t>(from)) return *reinterpret_cast<const uint32_t*>(from);
  if (count == 2 && IsAligned<uint16_t>(from)) return *reinterpret_cast<const uint16_t*>(from);
  uint64_t word = 0;
  for (int64_t i = 0; i < count; ++i) word |= uint64_t{from[i]} << (8 * i);
  return word;
}

__device__ inline int64_t BytesOf(int64_t codes, int bits) {
  return PackedBytes(codes < kChunk ? codes : kChunk, bits);
}

__global__ void PackKernel(const uint8_t* codes, uint8_t* packed, int64_t rows, int64_t cols, int64_t row_bytes,
                           int bits) {
  const uint32_t mask = (1u << bits) - 1;
  ForRowChunks<kChunk>(rows, cols, [&](int64_t row, int64_t column, int64_t count) {
    uint8_t eight[kChunk];
    LoadChunk<kChunk>(codes + row * cols + column, count, eight);
    uint64_t word = 0;
    TY_UNROLL
    for (int i = 0; i < kChunk; ++i) word |= uint64_t{eight[i] & mask} << (i * bits);
    StoreBytes(word, BytesOf(count, bits), packed + row * row_bytes + column / 8 * bits);
  });
}

__global__ void UnpackKernel(const uint8_t* packed, uint8_t* codes, int64_t rows, int64_t cols, int64_t row_bytes,
                             int bits, bool is_signed) {
  const uint32_t mask = (1u << bits) - 1;
  // Flipping the sign bit and subtracting it carries it upwards.
  const uint32_t sign = is_signed ? 1u << (bits - 1) : 0;
  ForRowChunks<kChunk>(rows, cols, [&](int64_t row, int64_t column, int64_t count) {
    const uint64_t word = LoadBytes(packed + row * row_bytes + column / 8 * bits, BytesOf(count, bits));
    uint8_t eight[kChunk];
    TY_UNROLL
    for (int i = 0; i < kChunk; ++i) {
      const uint32_t code = static_cast<uint32_t>(word >> (i * bits)) & mask;
      eight[i] = static_cast<uint8_t>((code ^ sign) - sign);
    }
    StoreChunk<kChunk>(eight, count, codes + row * cols + column);
  });
}

// Bits, not numbers: a NaN that is kept stays the NaN it is.
template <typename Bits>
__global__ void MaskKernel(const Bits* x, const uint8_t* mask, Bits* y, int64_t rows, int64_t cols, int64_t row_bytes) {
  ForRowChunks<kChunk>(rows, cols, [&](int64_t row, int64_t column, int64_t count) {
    const uint32_t keep = mask[row * row_bytes + column / 8];
    Bits eight[kChunk];
    LoadChunk<kChunk>(x + row * cols + column, count, eight);
    TY_UNROLL
    for (int i = 0; i < kChunk; ++i) eight[i] = static_cast<Bits>((keep >> i & 1) != 0 ? eight[i] : 0);
    StoreChunk<kChunk>(eight, count, y + row * cols + column);
  });
}

Grid GridFor(const TensorView& rows) {
  return RowChunkGrid(rows.dim(0), (rows.dim(1) + kChunk - 1) / kChunk);
}

template <typename Bits>
void Mask(const MaskRowsArgs& args, Stream& stream) {
  Launch(stream, GridFor(args.x), MaskKernel<Bits>, static_cast<const Bits*>(args.x.data()), args.mask.as<uint8_t>(),
         static_cast<Bits*>(args.y.data()), args.x.dim(0), args.x.dim(1), args.mask.dim(1));
}

}  // namespace

void PackRowsCuda(const PackRowsArgs& args, Stream& stream) {
  if (args.codes.size() == 0) return;
  Launch(stream, GridFor(args.codes), PackKernel, args.codes.as<uint8_t>(), args.packed.as<uint8_t>(),
         args.codes.dim(0), args.codes.dim(1), args.packed.dim(1), args.bits);
}

void UnpackRowsCuda(const UnpackRowsArgs& args, Stream& stream) {
  if (args.codes.size() == 0) return;
  Launch(stream, GridFor(args.codes), UnpackKernel, args.packed.as<uint8_t>(), args.codes.as<uint8_t>(),
         args.codes.dim(0), args.codes.dim(1), args.packed.dim(1), args.bits, args.is_signed);
}

void MaskRowsCuda(const MaskRowsArgs& args, Stream& stream) {
  if (args.x.size() == 0) return;
  if (args.x.dtype() == DType::kF32) return Mask<uint32_t>(args, stream);
  TY_CHECK(args.x.dtype() == DType::kBF16);
  Mask<uint16_t>(args, stream);
}

}  // namespace trainyard::kernels::internal
