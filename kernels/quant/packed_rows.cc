#include "kernels/quant/packed_rows.h"

#include "kernels/core/dispatch.h"
#include "kernels/quant/packed_rows_internal.h"

namespace trainyard::kernels {
namespace {

void CheckPacked(const TensorView& rows, const TensorView& packed, int bits) {
  TY_CHECK(bits >= 1 && bits <= 8);
  TY_CHECK_EQ(rows.rank(), 2);
  TY_CHECK_EQ(packed.rank(), 2);
  TY_CHECK_EQ(packed.dim(0), rows.dim(0));
  TY_CHECK_EQ(packed.dim(1), PackedBytes(rows.dim(1), bits));
}

}  // namespace

void PackRows(const PackRowsArgs& args, Stream& stream) {
  CheckPacked(args.codes, args.packed, args.bits);
  TY_SELECT(stream, PackRows)(args, stream);
}

void UnpackRows(const UnpackRowsArgs& args, Stream& stream) {
  CheckPacked(args.codes, args.packed, args.bits);
  TY_SELECT(stream, UnpackRows)(args, stream);
}

void MaskRows(const MaskRowsArgs& args, Stream& stream) {
  CheckPacked(args.x, args.mask, 1);
  TY_CHECK(SameShape(args.x, args.y));
  TY_CHECK(args.x.dtype() == args.y.dtype());
  TY_SELECT(stream, MaskRows)(args, stream);
}

}  // namespace trainyard::kernels
