#include "kernels/codec/piece_math.h"

#include "kernels/codec/piece_math_internal.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {

void WidenAdd(const WidenAddArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.size(), args.y.size());
  if (args.addend) TY_CHECK_EQ(args.addend.size(), args.y.size());
  TY_SELECT(stream, WidenAdd)(args, stream);
}

void RoundSum(const RoundSumArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.size(), args.y.size());
  TY_SELECT(stream, RoundSum)(args, stream);
}

void Difference(const DifferenceArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.a.size(), args.y.size());
  TY_CHECK_EQ(args.b.size(), args.y.size());
  TY_SELECT(stream, Difference)(args, stream);
}

void ScaleInPlace(const ScaleInPlaceArgs& args, Stream& stream) {
  TY_SELECT(stream, ScaleInPlace)(args, stream);
}

void KeepLost(const KeepLostArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.value.size(), args.kept.size());
  TY_CHECK_EQ(args.decoded.size(), args.kept.size());
  TY_SELECT(stream, KeepLost)(args, stream);
}

void SumPieces(const SumPiecesArgs& args, Stream& stream) {
  const int64_t others = args.pieces.dim(0);
  TY_CHECK(args.own >= 0 && args.own <= others);
  TY_CHECK_EQ(args.pieces.size(), others * args.out.size());
  TY_CHECK_EQ(args.own_piece.size(), args.out.size());
  TY_CHECK(args.own_piece.dtype() == args.out.dtype() && args.pieces.dtype() == args.out.dtype());
  TY_SELECT(stream, SumPieces)(args, stream);
}

void CopyBytes(const CopyBytesArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.from.size(), args.to.size());
  TY_SELECT(stream, CopyBytes)(args, stream);
}

void ZeroBytes(const TensorView& bytes, Stream& stream) {
  TY_SELECT(stream, ZeroBytes)(bytes, stream);
}

}  // namespace trainyard::kernels
