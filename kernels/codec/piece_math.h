// What an exchange of gradients does to vectors besides coding them: each a pass over memory, in f32, one rounding an
// operation, so all backends and any number of threads give the same bits (but for which NaN a NaN is).
//
// Every op enqueues on the stream and overwrites its output. Vectors have equal lengths, given by the output; `y` may
// be an input, exactly.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

// y = float(x) + addend. x: f32 or bf16; addend: f32, or not there: y = float(x); y: f32.
struct WidenAddArgs {
  TensorView x, addend, y;
};
void WidenAdd(const WidenAddArgs& args, Stream& stream);

// y = x rounded to y's type, f32 or bf16. x: f32.
struct RoundSumArgs {
  TensorView x, y;
};
void RoundSum(const RoundSumArgs& args, Stream& stream);

// y = a - b, all f32.
struct DifferenceArgs {
  TensorView a, b, y;
};
void Difference(const DifferenceArgs& args, Stream& stream);

// x *= factor; x: f32.
struct ScaleInPlaceArgs {
  TensorView x;
  float factor = 1.0f;
};
void ScaleInPlace(const ScaleInPlaceArgs& args, Stream& stream);

// What a code lost: kept = (value - decoded) / divisor where that is finite; elsewhere `kept` stays as it was. All f32.
struct KeepLostArgs {
  TensorView value, decoded, kept;
  float divisor = 1.0f;
};
void KeepLost(const KeepLostArgs& args, Stream& stream);

// out = round(scale * (((piece_0 + piece_1) + piece_2) + ...)), rounded once to the type, f32 or bf16. `pieces` holds
// those of the other ranks in rank order; the own one may be `out`.
struct SumPiecesArgs {
  TensorView pieces;     // (ranks - 1, n)
  TensorView own_piece;  // (n)
  int own = 0;           // its rank
  float scale = 1.0f;
  TensorView out;  // (n)
};
void SumPieces(const SumPiecesArgs& args, Stream& stream);

// to = from, bytes (u8) of any alignment that do not overlap.
struct CopyBytesArgs {
  TensorView from, to;
};
void CopyBytes(const CopyBytesArgs& args, Stream& stream);

// A few zeros: u8, any alignment.
void ZeroBytes(const TensorView& bytes, Stream& stream);

}  // namespace trainyard::kernels
