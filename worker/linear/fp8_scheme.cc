#include "worker/linear/fp8_scheme.h"

#include <algorithm>

#include "kernels/gemm/fp8_gemm.h"
#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/quant/abs_max.h"
#include "kernels/quant/fp8_quantize.h"
#include "worker/linear/scratch.h"

namespace trainyard::linear {
namespace {

using kernels::Device;
using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

// A quantized tensor in the forms that it was asked for.
struct Operand {
  TensorView values;      // the codes' numbers in the storage dtype
  TensorView codes;       // as the tensor lies
  TensorView transposed;  // the codes, rows and columns exchanged
  TensorView inverse;     // f32 (1): what all of them are multiplied by
};
struct Forms {
  bool values = false, codes = false, transposed = false;
};
constexpr Forms kOnCpu = {.values = true, .codes = true};

class Fp8Scheme final : public LinearScheme {
 public:
  explicit Fp8Scheme(const spec::LinearFp8& options)
      : gradient_codes_(options.gradient_format == spec::LinearFp8::GradientFormat::kE4M3 ? DType::kF8E4M3
                                                                                          : DType::kF8E5M2) {}

  absl::string_view name() const override { return "fp8"; }
  bool UsesAmax(const LinearSite& /*site*/) const override { return true; }

  int64_t WorkspaceBytes(const LinearSite& site) const override {
    const int64_t x = site.rows * site.in;
    const int64_t w = site.out * site.in;
    const int64_t dy = site.rows * site.out;
    const auto operands = [&](const Forms& of_xw, const Forms& of_dy) {
      return OperandBytes(site.storage, x, of_xw) + OperandBytes(site.storage, w, of_xw) +
             OperandBytes(site.storage, dy, of_dy);
    };
    const int64_t on_cpu = operands(kOnCpu, kOnCpu) + Scratch::Bytes(DType::kF32, site.out) +
                           kernels::LinearWorkspaceBytes(site.storage, site.rows, site.in, site.out);
    return std::max(on_cpu, operands({.transposed = true}, {.codes = true, .transposed = true}));
  }

  void Forward(const LinearCall& call, const kernels::LinearForwardArgs& args, Stream& stream) const override {
    Scratch scratch(args.workspace);
    const bool on_cpu = stream.device() == Device::kCpu;
    const Forms forms = on_cpu ? kOnCpu : Forms{.codes = true};
    const Operand x = Quantize(args.x, call.x_amax, DType::kF8E4M3, forms, scratch, stream);
    const Operand w = Quantize(args.w, {}, DType::kF8E4M3, forms, scratch, stream);
    if (!on_cpu) return Multiply(x.codes, x, w.codes, w, {.c = args.y, .bias = args.bias}, stream);
    Gemm({.a = x.values,
          .b = w.values,
          .c = args.y,
          .transpose_b = true,
          .a_scale = x.inverse,
          .b_scale = w.inverse,
          .bias = args.bias,
          .workspace = scratch.Rest()},
         stream);
  }

  void Backward(const LinearCall& call, const LinearBackwardArgs& args, Stream& stream) const override {
    Scratch scratch(args.workspace);
    if (stream.device() == Device::kCpu) {
      BackwardOnCpu(call, args, scratch, stream);
    } else {
      BackwardOnDevice(call, args, scratch, stream);
    }
  }

 private:
  // With its amax and inverse.
  static int64_t OperandBytes(DType storage, int64_t elements, const Forms& forms) {
    const int64_t codes = Scratch::Bytes(DType::kF8E4M3, elements);
    return (forms.values ? Scratch::Bytes(storage, elements) : 0) + (forms.codes ? codes : 0) +
           (forms.transposed ? codes : 0) + 2 * Scratch::Bytes(DType::kF32, 1);
  }

  // `amax`: of v, if somebody has it.
  static Operand Quantize(const TensorView& v, const TensorView& amax, DType code_type, const Forms& forms,
                          Scratch& scratch, Stream& stream) {
    Operand operand;
    operand.inverse = scratch.Take(DType::kF32, {1});
    if (forms.codes) operand.codes = scratch.Take(code_type, {v.dim(0), v.dim(1)});
    if (forms.transposed) operand.transposed = scratch.Take(code_type, {v.dim(1), v.dim(0)});
    if (forms.values) operand.values = scratch.Take(v.dtype(), {v.dim(0), v.dim(1)});
    TensorView known = amax;
    if (!known) {
      known = scratch.Take(DType::kF32, {1});
      AbsMax({.x = v, .y = known}, stream);
    }
    Fp8Quantize({.x = v,
                 .amax = known,
                 .codes = operand.codes,
                 .inverse = operand.inverse,
                 .values = operand.values,
                 .transposed = operand.transposed},
                stream);
    return operand;
  }

  struct Product {
    TensorView c;
    float beta = 0;
    TensorView bias = {};
  };
  // c = a b^T + beta c + bias: codes of `left` and `right` that lie along what is contracted.
  static void Multiply(const TensorView& a, const Operand& left, const TensorView& b, const Operand& right,
                       const Product& product, Stream& stream) {
    Fp8Gemm({.a = a,
             .b = b,
             .a_inverse = left.inverse,
             .b_inverse = right.inverse,
             .c = product.c,
             .transpose_b = true,
             .beta = product.beta,
             .bias = product.bias,
             .widened = product.c.dtype()},
            stream);
  }

  void BackwardOnDevice(const LinearCall& call, const LinearBackwardArgs& args, Scratch& scratch,
                        Stream& stream) const {
    const Forms across = {.transposed = true};
    const Operand dy =
        Quantize(args.dy, call.dy_amax, gradient_codes_, {.codes = true, .transposed = true}, scratch, stream);
    const Operand x = Quantize(args.x, call.x_amax, DType::kF8E4M3, across, scratch, stream);
    const Operand w = Quantize(args.w, {}, DType::kF8E4M3, across, scratch, stream);
    if (args.db) {
      Fp8RowSums({.codes = dy.transposed, .inverse = dy.inverse, .y = args.db, .accumulate = args.accumulate}, stream);
    }
    Multiply(dy.codes, dy, w.transposed, w, {.c = args.dx}, stream);
    Multiply(dy.transposed, dy, x.transposed, x, {.c = args.dw, .beta = args.accumulate ? 1.0f : 0.0f}, stream);
  }

  void BackwardOnCpu(const LinearCall& call, const LinearBackwardArgs& args, Scratch& scratch, Stream& stream) const {
    const Operand dy = Quantize(args.dy, call.dy_amax, gradient_codes_, kOnCpu, scratch, stream);
    const Operand x = Quantize(args.x, call.x_amax, DType::kF8E4M3, kOnCpu, scratch, stream);
    const Operand w = Quantize(args.w, {}, DType::kF8E4M3, kOnCpu, scratch, stream);
    if (args.db) BiasGradientOnCpu(dy, args, scratch, stream);
    Gemm({.a = dy.values,
          .b = w.values,
          .c = args.dx,
          .a_scale = dy.inverse,
          .b_scale = w.inverse,
          .workspace = scratch.Rest()},
         stream);
    Gemm({.a = dy.values,
          .b = x.values,
          .c = args.dw,
          .transpose_a = true,
          .beta = args.accumulate ? 1.0f : 0.0f,
          .a_scale = dy.inverse,
          .b_scale = x.inverse,
          .workspace = scratch.Rest()},
         stream);
  }

  static void BiasGradientOnCpu(const Operand& dy, const LinearBackwardArgs& args, Scratch& scratch, Stream& stream) {
    const TensorView sums = scratch.Take(DType::kF32, {args.db.size()});
    BiasGradient({.dy = dy.values, .db = sums, .accumulate = false}, stream);
    if (!args.accumulate) Fill({.y = args.db}, stream);
    Accumulate({.x = sums, .y = args.db, .scale = dy.inverse.as<float>()[0]}, stream);
  }

  const DType gradient_codes_;
};

}  // namespace

std::unique_ptr<LinearScheme> MakeFp8Scheme(const spec::LinearFp8& options) {
  return std::make_unique<Fp8Scheme>(options);
}

}  // namespace trainyard::linear
