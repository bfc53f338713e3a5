// Rows of small codes as they are kept: `bits` bits each, side by side, each row beginning at a byte of its own
// (kernels/codec/bit_packing.h; with four bits the code of an even column is in the low half of its byte).
//
//   Pack:   keeps the low `bits` bits of every code, so that signed codes travel as two's complement
//   Unpack: one byte a code; with is_signed the top bit is carried into the upper bits (INT codes), else they are zero
//
// A mask is a row of codes of one bit: column c is bit c % 8 of byte c / 8.
#pragma once

#include "kernels/codec/bit_packing.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct PackRowsArgs {
  TensorView codes;   // u8 (rows, cols)
  TensorView packed;  // u8 (rows, PackedBytes(cols, bits)), overwritten; the last bits of a row are zero
  int bits = 4;       // 1..8
};
void PackRows(const PackRowsArgs& args, Stream& stream);

struct UnpackRowsArgs {
  TensorView packed;
  TensorView codes;  // overwritten
  int bits = 4;
  bool is_signed = false;
};
void UnpackRows(const UnpackRowsArgs& args, Stream& stream);

// y = x where the mask is 1, +0 elsewhere, whatever x is there.
struct MaskRowsArgs {
  TensorView x;     // f32 or bf16 (rows, cols)
  TensorView mask;  // u8 (rows, PackedBytes(cols, 1))
  TensorView y;     // dtype and shape of x, overwritten; may be x
};
void MaskRows(const MaskRowsArgs& args, Stream& stream);

}  // namespace trainyard::kernels
