#include <algorithm>
#include <cstring>

#include "kernels/codec/piece_math_internal.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kGrain = 1 << 15;

// Partial sums stay in the first-level cache, and `out` is written only after all pieces of a block were read.
constexpr int64_t kBlock = 2048;

TY_SIMD void AddVectors(const float* x, const float* addend, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] + addend[i];
}
TY_SIMD void WidenVector(const BFloat16* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = ToFloat(x[i]);
}
TY_SIMD void WidenAndAdd(const BFloat16* x, const float* addend, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = ToFloat(x[i]) + addend[i];
}
TY_SIMD void NarrowVector(const float* x, int64_t count, BFloat16* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<BFloat16>(x[i]);
}
TY_SIMD void Subtract(const float* a, const float* b, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = a[i] - b[i];
}
TY_SIMD void Multiply(float factor, int64_t count, float* x) {
  for (int64_t i = 0; i < count; ++i) x[i] *= factor;
}
TY_SIMD void Keep(const float* value, const float* decoded, float divisor, int64_t count, float* kept) {
  for (int64_t i = 0; i < count; ++i) kept[i] = LostOrKept(value[i], decoded[i], divisor, kept[i]);
}

template <typename T>
TY_INLINE void SumBlocks(const T* pieces, const T* own_piece, int own, int64_t ranks, int64_t stride, float scale,
                         int64_t begin, int64_t end, T* out) {
  alignas(64) float sum[kBlock];
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t count = std::min(kBlock, end - first);
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const T* const piece = (rank == own ? own_piece : pieces + (rank < own ? rank : rank - 1) * stride) + first;
      if (rank == 0) {
        for (int64_t i = 0; i < count; ++i) sum[i] = ToFloat(piece[i]);
      } else {
        for (int64_t i = 0; i < count; ++i) sum[i] += ToFloat(piece[i]);
      }
    }
    for (int64_t i = 0; i < count; ++i) out[first + i] = FromFloat<T>(sum[i] * scale);
  }
}
TY_SIMD void SumBlocksOf(const float* pieces, const float* own_piece, int own, int64_t ranks, int64_t stride,
                         float scale, int64_t begin, int64_t end, float* out) {
  SumBlocks(pieces, own_piece, own, ranks, stride, scale, begin, end, out);
}
TY_SIMD void SumNarrowBlocksOf(const BFloat16* pieces, const BFloat16* own_piece, int own, int64_t ranks,
                               int64_t stride, float scale, int64_t begin, int64_t end, BFloat16* out) {
  SumBlocks(pieces, own_piece, own, ranks, stride, scale, begin, end, out);
}

}  // namespace

void WidenAddCpu(const WidenAddArgs& args, Stream& stream) {
  float* const y = args.y.as<float>();
  const float* const addend = args.addend ? args.addend.as<float>() : nullptr;
  const bool is_wide = args.x.dtype() == DType::kF32;
  const float* const wide = is_wide ? args.x.as<float>() : nullptr;
  const BFloat16* const narrow = is_wide ? nullptr : args.x.as<BFloat16>();
  stream.pool().ParallelFor(args.y.size(), kGrain, [&](int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    if (addend == nullptr) {
      if (is_wide) {
        std::memmove(y + begin, wide + begin, sizeof(float) * static_cast<size_t>(count));
      } else {
        WidenVector(narrow + begin, count, y + begin);
      }
    } else if (is_wide) {
      AddVectors(wide + begin, addend + begin, count, y + begin);
    } else {
      WidenAndAdd(narrow + begin, addend + begin, count, y + begin);
    }
  });
}

void RoundSumCpu(const RoundSumArgs& args, Stream& stream) {
  const float* const x = args.x.as<float>();
  if (args.y.dtype() == DType::kF32) {
    WidenAddCpu({.x = args.x, .addend = TensorView(), .y = args.y}, stream);
    return;
  }
  BFloat16* const y = args.y.as<BFloat16>();
  stream.pool().ParallelFor(args.y.size(), kGrain,
                            [&](int64_t begin, int64_t end) { NarrowVector(x + begin, end - begin, y + begin); });
}

void DifferenceCpu(const DifferenceArgs& args, Stream& stream) {
  const float* const a = args.a.as<float>();
  const float* const b = args.b.as<float>();
  float* const y = args.y.as<float>();
  stream.pool().ParallelFor(args.y.size(), kGrain, [&](int64_t begin, int64_t end) {
    Subtract(a + begin, b + begin, end - begin, y + begin);
  });
}

void ScaleInPlaceCpu(const ScaleInPlaceArgs& args, Stream& stream) {
  float* const x = args.x.as<float>();
  stream.pool().ParallelFor(args.x.size(), kGrain,
                            [&](int64_t begin, int64_t end) { Multiply(args.factor, end - begin, x + begin); });
}

void KeepLostCpu(const KeepLostArgs& args, Stream& stream) {
  const float* const value = args.value.as<float>();
  const float* const decoded = args.decoded.as<float>();
  float* const kept = args.kept.as<float>();
  stream.pool().ParallelFor(args.kept.size(), kGrain, [&](int64_t begin, int64_t end) {
    Keep(value + begin, decoded + begin, args.divisor, end - begin, kept + begin);
  });
}

void SumPiecesCpu(const SumPiecesArgs& args, Stream& stream) {
  const int64_t ranks = args.pieces.dim(0) + 1;
  stream.pool().ParallelFor(args.out.size(), kGrain, [&](int64_t begin, int64_t end) {
    if (args.out.dtype() == DType::kF32) {
      SumBlocksOf(args.pieces.as<float>(), args.own_piece.as<float>(), args.own, ranks, args.out.size(), args.scale,
                  begin, end, args.out.as<float>());
    } else {
      SumNarrowBlocksOf(args.pieces.as<BFloat16>(), args.own_piece.as<BFloat16>(), args.own, ranks, args.out.size(),
                        args.scale, begin, end, args.out.as<BFloat16>());
    }
  });
}

void CopyBytesCpu(const CopyBytesArgs& args, Stream& stream) {
  const uint8_t* const from = args.from.as<uint8_t>();
  uint8_t* const to = args.to.as<uint8_t>();
  stream.pool().ParallelFor(args.to.size(), 4 * kGrain, [&](int64_t begin, int64_t end) {
    std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
  });
}

void ZeroBytesCpu(const TensorView& bytes, Stream&) {
  if (bytes.size() > 0) std::memset(bytes.as<uint8_t>(), 0, static_cast<size_t>(bytes.size()));
}

}  // namespace trainyard::kernels::internal
