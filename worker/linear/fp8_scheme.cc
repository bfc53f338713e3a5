#include "worker/linear/fp8_scheme.h"

#include "kernels/core/dispatch.h"
#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/quant/abs_max.h"
#include "kernels/quant/fp8_quantize.h"
#include "worker/linear/scratch.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

struct Operand {
  TensorView values;
  float inverse_scale = 1;
};

class Fp8Scheme final : public LinearScheme {
 public:
  explicit Fp8Scheme(const spec::LinearFp8& options)
      : gradient_codes_(options.gradient_format == spec::LinearFp8::GradientFormat::kE4M3 ? DType::kF8E4M3
                                                                                          : DType::kF8E5M2) {}

  absl::string_view name() const override { return "fp8"; }

  int64_t WorkspaceBytes(const LinearSite& site) const override {
    return OperandBytes(site.storage, site.rows * site.in) + OperandBytes(site.storage, site.out * site.in) +
           OperandBytes(site.storage, site.rows * site.out) + Scratch::Bytes(DType::kF32, site.out) +
           kernels::LinearWorkspaceBytes(site.storage, site.rows, site.in, site.out);
  }

  void Forward(const LinearCall& /*call*/, const kernels::LinearForwardArgs& args, Stream& stream) const override {
    Scratch scratch(args.workspace);
    const Operand x = Quantize(args.x, DType::kF8E4M3, scratch, stream);
    const Operand w = Quantize(args.w, DType::kF8E4M3, scratch, stream);
    Gemm({.a = x.values,
          .b = w.values,
          .c = args.y,
          .transpose_b = true,
          .alpha = x.inverse_scale * w.inverse_scale,
          .bias = args.bias,
          .workspace = scratch.Rest()},
         stream);
  }

  void Backward(const LinearCall& /*call*/, const LinearBackwardArgs& args, Stream& stream) const override {
    Scratch scratch(args.workspace);
    const Operand dy = Quantize(args.dy, gradient_codes_, scratch, stream);
    const Operand x = Quantize(args.x, DType::kF8E4M3, scratch, stream);
    const Operand w = Quantize(args.w, DType::kF8E4M3, scratch, stream);
    if (args.db) BiasGradientOf(dy, args, scratch, stream);
    Gemm({.a = dy.values,
          .b = w.values,
          .c = args.dx,
          .alpha = dy.inverse_scale * w.inverse_scale,
          .workspace = scratch.Rest()},
         stream);
    Gemm({.a = dy.values,
          .b = x.values,
          .c = args.dw,
          .transpose_a = true,
          .alpha = dy.inverse_scale * x.inverse_scale,
          .beta = args.accumulate ? 1.0f : 0.0f,
          .workspace = scratch.Rest()},
         stream);
  }

 private:
  // Values, codes, and two numbers.
  static int64_t OperandBytes(DType storage, int64_t elements) {
    return Scratch::Bytes(storage, elements) + Scratch::Bytes(DType::kF8E4M3, elements) +
           2 * Scratch::Bytes(DType::kF32, 1);
  }

  static Operand Quantize(const TensorView& v, DType code_type, Scratch& scratch, Stream& stream) {
    const TensorView amax = scratch.Take(DType::kF32, {1});
    const TensorView inverse = scratch.Take(DType::kF32, {1});
    const TensorView codes = scratch.Take(code_type, {v.dim(0), v.dim(1)});
    const TensorView values = scratch.Take(v.dtype(), {v.dim(0), v.dim(1)});
    AbsMax({.x = v, .y = amax}, stream);
    Fp8Quantize({.x = v, .amax = amax, .codes = codes, .inverse = inverse, .values = values}, stream);
    kernels::WaitForDevice(stream);
    return {values, inverse.as<float>()[0]};
  }

  static void BiasGradientOf(const Operand& dy, const LinearBackwardArgs& args, Scratch& scratch, Stream& stream) {
    const TensorView sums = scratch.Take(DType::kF32, {args.db.size()});
    BiasGradient({.dy = dy.values, .db = sums, .accumulate = false}, stream);
    if (!args.accumulate) Fill({.y = args.db}, stream);
    Accumulate({.x = sums, .y = args.db, .scale = dy.inverse_scale}, stream);
  }

  const DType gradient_codes_;
};

}  // namespace

std::unique_ptr<LinearScheme> MakeFp8Scheme(const spec::LinearFp8& options) {
  return std::make_unique<Fp8Scheme>(options);
}

}  // namespace trainyard::linear
