#include "worker/linear/quartet2_scheme.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/gemm/fp4_gemm.h"
#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/quant/abs_max.h"
#include "kernels/quant/nvfp4.h"
#include "worker/linear/rotated_operand.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::NvBlock;
using kernels::NvFormat;
using kernels::NvMethod;
using kernels::Stream;
using kernels::TensorView;
using spec::LinearQuartet2;

// The table of the header, one row.
struct Numerics {
  bool quantizes_forward = true;
  NvFormat input, weight;          // of the forward
  bool quantizes_backward = true;  // false: dx = dy w_q, dw = dy^T x_q
  int64_t group_for_input = 0;     // rotation of dx
  bool requantizes_weight = true;  // else dx = A w_q, without a rotation
  NvFormat gradient, weight_again;
  int64_t group_for_weight = 0;    // rotation of dw
  bool rounds_input_twice = true;  // else B is made of x, not x_q
  NvFormat input_again;
};

NvFormat BackwardFormat(const LinearQuartet2& options) {
  switch (options.backward_quantizer) {
    case LinearQuartet2::BackwardQuantizer::kMsEden:
      return {.method = NvMethod::kMsEden,
              .eden_clip = static_cast<float>(options.eden_clip),
              .eden_group = options.eden_group};
    case LinearQuartet2::BackwardQuantizer::kStochastic:
      return {.method = NvMethod::kStochastic};
    case LinearQuartet2::BackwardQuantizer::kNearest:
    case LinearQuartet2::BackwardQuantizer::kNone:
      return {.method = NvMethod::kNearest};
  }
  TY_CHECK(false);
  return {};
}

Numerics NumericsOf(const LinearQuartet2& options) {
  const NvFormat nearest{.method = NvMethod::kNearest}, stochastic{.method = NvMethod::kStochastic};
  Numerics numerics;
  numerics.input = options.four_over_six ? NvFormat{} : nearest;
  numerics.weight = numerics.input;
  switch (options.recipe) {
    case LinearQuartet2::Recipe::kNvidia:
      numerics.weight.block = NvBlock::k16x16;
      numerics.requantizes_weight = false;
      numerics.gradient = stochastic;
      numerics.group_for_weight = 16;
      numerics.rounds_input_twice = false;
      numerics.input_again = nearest;
      return numerics;
    case LinearQuartet2::Recipe::kTetraJetV2:
      numerics.group_for_input = numerics.group_for_weight = 32;
      numerics.gradient = numerics.weight_again = numerics.input_again = stochastic;
      return numerics;
    case LinearQuartet2::Recipe::kQuartet2:
      break;
  }
  if (options.weight_block == LinearQuartet2::WeightBlock::k16x16) numerics.weight.block = NvBlock::k16x16;
  numerics.quantizes_forward = options.forward_enabled;
  numerics.quantizes_backward =
      options.backward_enabled && options.backward_quantizer != LinearQuartet2::BackwardQuantizer::kNone;
  numerics.requantizes_weight = options.requantize_weight;
  numerics.group_for_input = options.requantize_weight ? options.hadamard_dim : 0;
  numerics.group_for_weight = options.hadamard_dim;
  numerics.gradient = numerics.weight_again = numerics.input_again = BackwardFormat(options);
  return numerics;
}

class Quartet2Scheme final : public LinearScheme {
 public:
  Quartet2Scheme(const LinearQuartet2& options, bool quantizes) : is_(NumericsOf(options)), quantizes_(quantizes) {}

  absl::string_view name() const override { return "quartet2"; }

  int64_t WorkspaceBytes(const LinearSite& site) const override {
    const int64_t x = OperandBytes(site.storage, site.rows * site.in);
    const int64_t w = OperandBytes(site.storage, site.out * site.in);
    const int64_t y = OperandBytes(site.storage, site.rows * site.out);
    const int64_t scales = 4 * 2 * Scratch::Bytes(DType::kF32, 1);
    const int64_t signs = RotationBytes(std::max(is_.group_for_input, is_.group_for_weight));
    // Codes instead of values, on devices that take them.
    const int64_t codes =
        CodeBytes(site.rows * site.out) + std::max(CodeBytes(site.rows * site.in), CodeBytes(site.out * site.in));
    const int64_t tiles = std::max({kernels::Fp4GemmDeviceWorkspaceBytes(site.rows, site.out, site.in),
                                    kernels::Fp4GemmDeviceWorkspaceBytes(site.rows, site.in, site.out),
                                    kernels::Fp4GemmDeviceWorkspaceBytes(site.out, site.in, site.rows)});
    return x + w + y + std::max(x, w) + scales + signs + codes +
           std::max(tiles, kernels::LinearWorkspaceBytes(site.storage, site.rows, site.in, site.out));
  }

  bool UsesAmax(const LinearSite& /*site*/) const override { return is_.quantizes_forward && quantizes_; }

  void Forward(const LinearCall& call, const kernels::LinearForwardArgs& args, Stream& stream) const override {
    Scratch scratch(args.workspace);
    const bool as_codes = is_.quantizes_forward && quantizes_ && HasFp4Products(args.w.dim(0), args.w.dim(1), stream);
    const Operand x = ForwardOperand(call, kForwardInput, args.x, as_codes, scratch, stream);
    const Operand w = ForwardOperand(call, kForwardWeight, args.w, as_codes, scratch, stream);
    ForwardProduct(x, w, args, scratch, stream);
  }

  void Backward(const LinearCall& call, const LinearBackwardArgs& args, Stream& stream) const override {
    const Scratch scratch(args.workspace);
    MakeInputGradient(call, args, scratch, stream);
    MakeWeightGradient(call, args, scratch, stream);
    if (args.db) BiasGradient({.dy = args.dy, .db = args.db, .accumulate = args.accumulate}, stream);
  }

 private:
  // What an operand is made of and for.
  struct Source {
    TensorView v;
    TensorView amax = {};   // of v, if somebody has it
    TensorView scale = {};  // v are the values of an operand that has it
    bool as_codes = false;  // else values
  };

  static int64_t CodeBytes(int64_t elements) {
    return Scratch::Bytes(DType::kU8, elements / 2) + Scratch::Bytes(DType::kF8E4M3, elements / kernels::kNvGroup);
  }

  // `values`: where they go, unless it is codes.
  Operand Quantized(const LinearCall& call, OperandRole role, const NvFormat& format, const Source& source,
                    const TensorView& values, Scratch& scratch, Stream& stream) const {
    const TensorView& v = source.v;
    TensorView amax = source.amax;
    if (!amax) {
      amax = scratch.Take(DType::kF32, {1});
      AbsMax({.x = v, .y = amax}, stream);
    }
    Operand operand;
    operand.scale = scratch.Take(DType::kF32, {1});
    if (source.as_codes) {
      operand.packed = scratch.Take(DType::kU8, {v.dim(0), v.dim(1) / 2});
      operand.group_scales = scratch.Take(DType::kF8E4M3, {v.dim(0), v.dim(1) / kernels::kNvGroup});
    } else {
      operand.values = values;
    }
    NvQuantize({.x = v,
                .amax = amax,
                .x_scale = source.scale,
                .format = format,
                .random = call.Key(kernels::kRandomQuantize, role),
                .tensor_scale = operand.scale,
                .packed = operand.packed,
                .scales = operand.group_scales,
                .values = operand.values},
               stream);
    return operand;
  }

  // x_q or w_q.
  Operand ForwardOperand(const LinearCall& call, OperandRole role, const TensorView& x, bool as_codes, Scratch& scratch,
                         Stream& stream) const {
    if (!is_.quantizes_forward || !quantizes_) return {x};
    const bool is_weight = role == kForwardWeight;
    const TensorView values = as_codes ? TensorView() : scratch.Take(x.dtype(), {x.dim(0), x.dim(1)});
    return Quantized(call, role, is_weight ? is_.weight : is_.input,
                     {.v = x, .amax = is_weight ? TensorView() : call.x_amax, .as_codes = as_codes}, values, scratch,
                     stream);
  }

  // An operand of a backward product; x.scale stays in it. `amax`: of x.
  Operand BackwardOperand(const LinearCall& call, OperandRole role, const NvFormat& format, const Operand& x,
                          const TensorView& amax, Axis contracted, const Rotation& rotation, bool as_codes,
                          Scratch& scratch, Stream& stream) const {
    const TensorView v = Rotated(x.values, contracted, rotation, scratch, stream);
    if (!quantizes_) return {.values = v, .scale = x.scale};
    const bool is_x = v.data() == x.values.data();
    return Quantized(call, role, format,
                     {.v = v, .amax = is_x ? amax : TensorView(), .scale = x.scale, .as_codes = as_codes},
                     as_codes ? TensorView() : ValuesOf(v, x.values, x.values.dtype(), scratch), scratch, stream);
  }

  // Scratch by value: what a product takes is free after it.
  void MakeInputGradient(const LinearCall& call, const LinearBackwardArgs& args, Scratch scratch,
                         Stream& stream) const {
    const Operand w = ForwardOperand(call, kForwardWeight, args.w, /*as_codes=*/false, scratch, stream);
    if (!is_.quantizes_backward) return MultiplyByWeight({args.dy}, w, args, scratch, stream);
    const Rotation rotation = DrawRotation(call, kInputGradient, is_.group_for_input, scratch, stream);
    const bool as_codes = is_.requantizes_weight && quantizes_ && HasFp4Products(args.w.dim(1), args.w.dim(0), stream);
    const Operand dy = BackwardOperand(call, kDyForInput, is_.gradient, {args.dy}, call.dy_amax, Axis::kColumns,
                                       rotation, as_codes, scratch, stream);
    if (!is_.requantizes_weight) return MultiplyByWeight(dy, w, args, scratch, stream);
    const Operand again = BackwardOperand(call, kWeightForInput, is_.weight_again, w, {}, Axis::kRows, rotation,
                                          as_codes, scratch, stream);
    MultiplyRows(dy, again, {.c = args.dx}, scratch, stream);
  }

  static void MultiplyByWeight(const Operand& dy, const Operand& w, const LinearBackwardArgs& args,
                               const Scratch& scratch, Stream& stream) {
    Gemm({.a = dy.values,
          .b = w.values,
          .c = args.dx,
          .a_scale = dy.scale,
          .b_scale = w.scale,
          .workspace = scratch.Rest()},
         stream);
  }

  void MakeWeightGradient(const LinearCall& call, const LinearBackwardArgs& args, Scratch scratch,
                          Stream& stream) const {
    const float beta = args.accumulate ? 1.0f : 0.0f;
    Operand x{args.x};
    if (is_.rounds_input_twice) {
      x = ForwardOperand(call, kForwardInput, args.x, /*as_codes=*/false, scratch, stream);
    }
    if (!is_.quantizes_backward) {
      Gemm({.a = args.dy,
            .b = x.values,
            .c = args.dw,
            .transpose_a = true,
            .beta = beta,
            .b_scale = x.scale,
            .workspace = scratch.Rest()},
           stream);
      return;
    }
    const Rotation rotation = DrawRotation(call, kWeightGradient, is_.group_for_weight, scratch, stream);
    const bool as_codes = quantizes_ && HasFp4Products(args.dw.dim(1), args.dy.dim(0), stream);
    const Operand dy = BackwardOperand(call, kDyForWeight, is_.gradient, {args.dy}, {}, Axis::kRows, rotation, as_codes,
                                       scratch, stream);
    x = BackwardOperand(call, kInputForWeight, is_.input_again, x, {}, Axis::kRows, rotation, as_codes, scratch,
                        stream);
    MultiplyRows(dy, x, {.c = args.dw, .beta = beta}, scratch, stream);
  }

  const Numerics is_;
  const bool quantizes_;
};

}  // namespace

std::unique_ptr<LinearScheme> MakeQuartet2Scheme(const LinearQuartet2& options) {
  return std::make_unique<Quartet2Scheme>(options, /*quantizes=*/true);
}

std::unique_ptr<LinearScheme> MakeUnquantizedQuartet2Scheme(const LinearQuartet2& options) {
  return std::make_unique<Quartet2Scheme>(options, /*quantizes=*/false);
}

}  // namespace trainyard::linear
