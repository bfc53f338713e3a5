#include "worker/linear/quartet_scheme.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/quant/mxfp4.h"
#include "kernels/quant/packed_rows.h"
#include "kernels/transform/hadamard.h"
#include "worker/linear/rotated_operand.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::MxFormat;
using kernels::Stream;
using kernels::TensorView;
using spec::LinearQuartet;

kernels::E8M0Rounding ExponentOf(LinearQuartet::ScaleRule rule) {
  switch (rule) {
    case LinearQuartet::ScaleRule::kFloor:
      return kernels::E8M0Rounding::kFloor;
    case LinearQuartet::ScaleRule::kNearest:
      return kernels::E8M0Rounding::kNearest;
    case LinearQuartet::ScaleRule::kCeil:
      return kernels::E8M0Rounding::kCeil;
  }
  TY_CHECK(false);
  return {};
}

MxFormat ForwardFormat(const LinearQuartet& options) {
  MxFormat format;
  if (options.forward_method != LinearQuartet::ForwardMethod::kQuest) {
    format.scale = kernels::MxScale::kAbsMax;
    if (options.forward_method == LinearQuartet::ForwardMethod::kAbsMaxStochastic) {
      format.rounding = kernels::Rounding::kStochastic;
    }
    return format;
  }
  format.exponent = ExponentOf(options.scale_rule);
  format.spread = options.scale_statistic == LinearQuartet::ScaleStatistic::kStd ? kernels::MxSpread::kStandardDeviation
                                                                                 : kernels::MxSpread::kRootMeanSquare;
  return format;
}

MxFormat BackwardFormat(const LinearQuartet& options) {
  MxFormat format{.scale = kernels::MxScale::kAbsMax};
  if (options.backward_rounding == LinearQuartet::Rounding::kStochastic) {
    format.rounding = kernels::Rounding::kStochastic;
  }
  return format;
}

class QuartetScheme final : public LinearScheme, public MaskProbe {
 public:
  QuartetScheme(const LinearQuartet& options, bool quantizes)
      : forward_group_(options.forward_hadamard_dim),
        backward_group_(options.backward_hadamard_dim),
        quantizes_forward_(options.forward_method != LinearQuartet::ForwardMethod::kNone && quantizes),
        quantizes_backward_(quantizes),
        plain_backward_(options.backward_method == LinearQuartet::BackwardMethod::kNone),
        // Scales by the largest magnitude clip nothing.
        has_mask_(options.apply_mask && options.forward_method == LinearQuartet::ForwardMethod::kQuest && quantizes),
        forward_(ForwardFormat(options)),
        backward_(BackwardFormat(options)) {}

  absl::string_view name() const override { return "quartet"; }

  int64_t WorkspaceBytes(const LinearSite& site) const override {
    const int64_t x = site.rows * site.in;
    const int64_t w = site.out * site.in;
    const int64_t y = site.rows * site.out;
    const int64_t input_gradient = OperandBytes(site.storage, y) + OperandBytes(site.storage, w) +
                                   (site.storage == DType::kF32 ? 0 : Scratch::Bytes(DType::kF32, x));
    const int64_t weight_gradient =
        OperandBytes(site.storage, y) + OperandBytes(site.storage, x) + Scratch::Bytes(DType::kF32, w);
    return ForwardBytes(site, x) + ForwardBytes(site, w) + RotationBytes(backward_group_) +
           std::max(input_gradient, weight_gradient) +
           kernels::LinearWorkspaceBytes(site.storage, site.rows, site.in, site.out);
  }

  void Forward(const LinearCall& call, const kernels::LinearForwardArgs& args, Stream& stream) const override {
    Scratch scratch(args.workspace);
    const Operand x = ForwardOperand(call, kForwardInput, args.x, /*with_mask=*/false, scratch, stream);
    const Operand w = ForwardOperand(call, kForwardWeight, args.w, /*with_mask=*/false, scratch, stream);
    ForwardProduct(x, w, args, scratch, stream);
  }

  void Backward(const LinearCall& call, const LinearBackwardArgs& args, Stream& stream) const override {
    Scratch scratch(args.workspace);
    const Operand x = ForwardOperand(call, kForwardInput, args.x, /*with_mask=*/true, scratch, stream);
    const Operand w = ForwardOperand(call, kForwardWeight, args.w, /*with_mask=*/true, scratch, stream);
    MakeInputGradient(call, args, x.mask, w, scratch, stream);
    MakeWeightGradient(call, args, x, w.mask, scratch, stream);
    if (args.db) BiasGradient({.dy = args.dy, .db = args.db, .accumulate = args.accumulate}, stream);
  }

  int64_t ProbeBytes(const LinearSite& site) const override {
    return ForwardBytes(site, site.rows * site.in) + ForwardBytes(site, site.out * site.in);
  }
  LayerMasks Probe(const LinearCall& call, const TensorView& x, const TensorView& w, const TensorView& workspace,
                   Stream& stream) const override {
    Scratch scratch(workspace);
    const TensorView of_x = ForwardOperand(call, kForwardInput, x, /*with_mask=*/true, scratch, stream).mask;
    const TensorView of_w = ForwardOperand(call, kForwardWeight, w, /*with_mask=*/true, scratch, stream).mask;
    return {.inputs = CountMasked(of_x, x.dim(1), stream), .weights = CountMasked(of_w, w.dim(1), stream)};
  }
  bool has_mask() const { return has_mask_; }

 private:
  // Of an operand with its mask.
  static int64_t ForwardBytes(const LinearSite& site, int64_t elements) {
    return OperandBytes(site.storage, elements) + Scratch::Bytes(DType::kU8, elements / 8);
  }

  // F of the header, in the domain of H.
  Operand ForwardOperand(const LinearCall& call, OperandRole role, const TensorView& x, bool with_mask,
                         Scratch& scratch, Stream& stream) const {
    if (forward_group_ == 0 && !quantizes_forward_) return {x};
    TensorView v = x;
    if (forward_group_ != 0) {
      v = scratch.Take(quantizes_forward_ ? DType::kF32 : x.dtype(), {x.dim(0), x.dim(1)});
      Hadamard({.x = x, .y = v, .group = forward_group_}, stream);
    }
    if (!quantizes_forward_) return {v};
    Operand operand{ValuesOf(v, x, x.dtype(), scratch), 1.0f / forward_.Range()};
    if (with_mask && has_mask_) operand.mask = scratch.Take(DType::kU8, {x.dim(0), x.dim(1) / 8});
    MxQuantize({.v = v,
                .format = forward_,
                .random = call.Key(kernels::kRandomQuantize, role),
                .values = operand.values,
                .mask = operand.mask},
               stream);
    return operand;
  }

  // B of the header.
  Operand BackwardOperand(const LinearCall& call, OperandRole role, const TensorView& x, Axis contracted,
                          const Rotation& rotation, Scratch& scratch, Stream& stream) const {
    const TensorView v = Rotated(x, contracted, rotation, scratch, stream);
    if (!quantizes_backward_) return {v};
    const TensorView values = ValuesOf(v, x, x.dtype(), scratch);
    MxQuantize({.v = v, .format = backward_, .random = call.Key(kernels::kRandomQuantize, role), .values = values},
               stream);
    return {values, 1.0f / backward_.Range()};
  }

  // Scratch by value: what a product takes is free after it.
  void MakeInputGradient(const LinearCall& call, const LinearBackwardArgs& args, const TensorView& mask,
                         const Operand& w, Scratch scratch, Stream& stream) const {
    const bool is_narrow = args.dx.dtype() != DType::kF32;
    const TensorView dx =
        is_narrow && forward_group_ != 0 ? scratch.Take(DType::kF32, {args.dx.dim(0), args.dx.dim(1)}) : args.dx;
    if (plain_backward_) {
      Gemm({.a = args.dy, .b = w.values, .c = dx, .alpha = w.factor, .workspace = scratch.Rest()}, stream);
    } else {
      const Rotation rotation = DrawRotation(call, kInputGradient, backward_group_, scratch, stream);
      const Operand a = BackwardOperand(call, kDyForInput, args.dy, Axis::kColumns, rotation, scratch, stream);
      const Operand b = BackwardOperand(call, kWeightForInput, w.values, Axis::kRows, rotation, scratch, stream);
      Gemm({.a = a.values,
            .b = b.values,
            .c = dx,
            .transpose_b = true,
            .alpha = a.factor * b.factor * w.factor,
            .workspace = scratch.Rest()},
           stream);
    }
    BackThrough(mask, dx, args.dx, stream);
  }

  void MakeWeightGradient(const LinearCall& call, const LinearBackwardArgs& args, const Operand& x,
                          const TensorView& mask, Scratch scratch, Stream& stream) const {
    const bool adds_later = args.accumulate && (forward_group_ != 0 || mask);
    const TensorView dw = adds_later ? scratch.Take(DType::kF32, {args.dw.dim(0), args.dw.dim(1)}) : args.dw;
    const float beta = args.accumulate && !adds_later ? 1.0f : 0.0f;
    if (plain_backward_) {
      Gemm({.a = args.dy,
            .b = x.values,
            .c = dw,
            .transpose_a = true,
            .alpha = x.factor,
            .beta = beta,
            .workspace = scratch.Rest()},
           stream);
    } else {
      const Rotation rotation = DrawRotation(call, kWeightGradient, backward_group_, scratch, stream);
      const Operand a = BackwardOperand(call, kDyForWeight, args.dy, Axis::kRows, rotation, scratch, stream);
      const Operand b = BackwardOperand(call, kInputForWeight, x.values, Axis::kRows, rotation, scratch, stream);
      Gemm({.a = a.values,
            .b = b.values,
            .c = dw,
            .transpose_b = true,
            .alpha = a.factor * b.factor * x.factor,
            .beta = beta,
            .workspace = scratch.Rest()},
           stream);
    }
    BackThrough(mask, dw, dw, stream);
    if (adds_later) Accumulate({.x = dw, .y = args.dw}, stream);
  }

  // y = (M o gradient) H.
  void BackThrough(const TensorView& mask, const TensorView& gradient, const TensorView& y, Stream& stream) const {
    if (forward_group_ != 0) {
      Hadamard({.x = gradient, .y = y, .group = forward_group_, .mask = mask, .inverse = true}, stream);
    } else if (mask) {
      MaskRows({.x = gradient, .mask = mask, .y = y}, stream);
    }
  }

  const int64_t forward_group_, backward_group_;
  const bool quantizes_forward_, quantizes_backward_, plain_backward_, has_mask_;
  const MxFormat forward_, backward_;
};

}  // namespace

std::unique_ptr<LinearScheme> MakeQuartetScheme(const LinearQuartet& options) {
  return std::make_unique<QuartetScheme>(options, /*quantizes=*/true);
}

std::unique_ptr<MaskProbe> MakeQuartetMaskProbe(const LinearQuartet& options) {
  auto scheme = std::make_unique<QuartetScheme>(options, /*quantizes=*/true);
  if (!scheme->has_mask()) return nullptr;
  return scheme;
}

std::unique_ptr<LinearScheme> MakeUnquantizedQuartetScheme(const LinearQuartet& options) {
  return std::make_unique<QuartetScheme>(options, /*quantizes=*/false);
}

}  // namespace trainyard::linear
