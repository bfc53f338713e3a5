#include "kernels/quant/fp8_quantize.h"

#include "kernels/core/dispatch.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/fp8_quantize_internal.h"

namespace trainyard::kernels {
namespace {

void CheckScales(const TensorView& scales, const TensorView& of) {
  if (scales.size() == 1) return;
  TY_CHECK_EQ(of.rank(), 2);
  TY_CHECK_EQ(scales.size(), of.dim(0));
}

bool IsFp8(const TensorView& codes) {
  return codes.dtype() == DType::kF8E4M3 || codes.dtype() == DType::kF8E5M2;
}

}  // namespace

void Fp8Quantize(const Fp8QuantizeArgs& args, Stream& stream) {
  TY_CHECK(internal::IsFloatStorage(args.x));
  TY_CHECK(args.codes || args.transposed);
  if (args.codes) {
    TY_CHECK(IsFp8(args.codes));
    TY_CHECK_EQ(args.codes.size(), args.x.size());
  }
  if (args.transposed) {
    TY_CHECK(IsFp8(args.transposed));
    if (args.codes) TY_CHECK(args.codes.dtype() == args.transposed.dtype());
    TY_CHECK_EQ(args.x.rank(), 2);
    TY_CHECK_EQ(args.transposed.rank(), 2);
    TY_CHECK_EQ(args.transposed.dim(0), args.x.dim(1));
    TY_CHECK_EQ(args.transposed.dim(1), args.x.dim(0));
  }
  TY_CHECK(args.target > 0.0f);
  CheckScales(args.amax, args.x);
  TY_CHECK_EQ(args.inverse.size(), args.amax.size());
  if (args.values) {
    TY_CHECK(internal::IsFloatStorage(args.values));
    TY_CHECK_EQ(args.values.size(), args.x.size());
    TY_CHECK(args.values.data() != args.x.data() || args.values.dtype() == args.x.dtype());
  }
  TY_SELECT(stream, Fp8Quantize)(args, stream);
}

void Fp8Dequantize(const Fp8DequantizeArgs& args, Stream& stream) {
  TY_CHECK(internal::IsFloatStorage(args.y));
  TY_CHECK(IsFp8(args.codes));
  TY_CHECK_EQ(args.y.size(), args.codes.size());
  CheckScales(args.inverse, args.codes);
  TY_SELECT(stream, Fp8Dequantize)(args, stream);
}

void Fp8RowSums(const Fp8RowSumsArgs& args, Stream& stream) {
  TY_CHECK(IsFp8(args.codes));
  TY_CHECK_EQ(args.codes.rank(), 2);
  TY_CHECK_EQ(args.inverse.size(), 1);
  TY_CHECK_EQ(args.y.size(), args.codes.dim(0));
  TY_SELECT(stream, Fp8RowSums)(args, stream);
}

}  // namespace trainyard::kernels
