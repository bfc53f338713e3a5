#include "kernels/quant/coded_matrix.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/quant/coded_matrix_internal.h"
#include "kernels/quant/float_block.h"

namespace trainyard::kernels {

void CheckCodedMatrix(const CodedMatrix& matrix) {
  const DType format = matrix.codes.dtype();
  if (format == DType::kF32) {
    TY_CHECK(!matrix.scales);
    return;
  }
  TY_CHECK(format == DType::kF8E4M3 || format == DType::kU8);
  TY_CHECK(matrix.scales.dtype() == DType::kF32 || matrix.scales.dtype() == DType::kF16);
  TY_CHECK_GE(matrix.scales.size(), 1);
  TY_CHECK_EQ(matrix.size() % matrix.scales.size(), 0);
  if (format == DType::kU8) TY_CHECK_EQ(matrix.span() % 2, 0);
}

void EncodeMatrix(const EncodeMatrixArgs& args, Stream& stream) {
  CheckCodedMatrix(args.matrix);
  TY_CHECK(internal::IsFloatStorage(args.x));
  TY_CHECK_EQ(args.x.size(), args.matrix.size());
  TY_SELECT(stream, EncodeMatrix)(args, stream);
}

void DecodeMatrix(const DecodeMatrixArgs& args, Stream& stream) {
  CheckCodedMatrix(args.matrix);
  TY_CHECK(internal::IsFloatStorage(args.y));
  TY_CHECK_EQ(args.y.size(), args.matrix.size());
  TY_SELECT(stream, DecodeMatrix)(args, stream);
}

}  // namespace trainyard::kernels
