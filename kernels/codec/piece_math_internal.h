#pragma once

#include "kernels/codec/piece_math.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {

TY_INLINE bool IsFiniteFloat(float x) {
  return (__builtin_bit_cast(uint32_t, x) & 0x7F800000) != 0x7F800000;
}

TY_INLINE float LostOrKept(float value, float decoded, float divisor, float kept) {
  const float left = (value - decoded) / divisor;
  return IsFiniteFloat(left) ? left : kept;
}

void WidenAddCpu(const WidenAddArgs& args, Stream& stream);
void RoundSumCpu(const RoundSumArgs& args, Stream& stream);
void DifferenceCpu(const DifferenceArgs& args, Stream& stream);
void ScaleInPlaceCpu(const ScaleInPlaceArgs& args, Stream& stream);
void KeepLostCpu(const KeepLostArgs& args, Stream& stream);
void SumPiecesCpu(const SumPiecesArgs& args, Stream& stream);
void CopyBytesCpu(const CopyBytesArgs& args, Stream& stream);
void ZeroBytesCpu(const TensorView& bytes, Stream& stream);

void WidenAddCuda(const WidenAddArgs& args, Stream& stream);
void RoundSumCuda(const RoundSumArgs& args, Stream& stream);
void DifferenceCuda(const DifferenceArgs& args, Stream& stream);
void ScaleInPlaceCuda(const ScaleInPlaceArgs& args, Stream& stream);
void KeepLostCuda(const KeepLostArgs& args, Stream& stream);
void SumPiecesCuda(const SumPiecesArgs& args, Stream& stream);
void CopyBytesCuda(const CopyBytesArgs& args, Stream& stream);
void ZeroBytesCuda(const TensorView& bytes, Stream& stream);

}  // namespace trainyard::kernels::internal
