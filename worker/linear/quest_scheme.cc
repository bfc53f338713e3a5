#include "worker/linear/quest_scheme.h"

#include <cmath>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/linear.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/quant/lsq.h"
#include "kernels/quant/packed_rows.h"
#include "kernels/transform/hadamard.h"
#include "worker/linear/quest_operands.h"
#include "worker/linear/scratch.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::PackedBytes;
using kernels::Stream;
using kernels::TensorView;

// An operand as the products see it.
struct Prepared {
  TensorView values;
  TensorView mask;       // absent: all of the gradient passes
  TensorView workspace;  // of the ops of learned steps
};

// `gradient` with respect to what the products saw becomes that with respect to the operand: y = (M o gradient) H. y
// may be `gradient`; else they may differ in dtype.
void BackThrough(const QuestOperand& operand, const TensorView& mask, const TensorView& gradient, const TensorView& y,
                 Stream& stream) {
  if (operand.rotate_group != 0) {
    Hadamard({.x = gradient, .y = y, .group = operand.rotate_group, .mask = mask, .inverse = true}, stream);
  } else if (mask) {
    MaskRows({.x = gradient, .mask = mask, .y = y}, stream);
  }
}

class QuestScheme final : public LinearScheme, public MaskProbe {
 public:
  explicit QuestScheme(const spec::LinearQuest& options)
      : operands_(OperandsOf(options)), learns_(options.projection == spec::LinearQuest::Projection::kLsq) {}

  absl::string_view name() const override { return "quest"; }
  int64_t ParameterCount() const override { return learns_ ? kQuestSteps : 0; }

  int64_t WorkspaceBytes(const LinearSite& site) const override {
    return OperandBytes(site.rows, site.in) + OperandBytes(site.out, site.in) + RotatedGradientBytes(site) +
           kernels::LinearWorkspaceBytes(site.storage, site.rows, site.in, site.out);
  }

  void Forward(const LinearCall& call, const kernels::LinearForwardArgs& args, Stream& stream) const override {
    Scratch scratch(args.workspace);
    const TensorView x = Prepare(kActivationStep, args.x, call, /*with_mask=*/false, scratch, stream).values;
    const TensorView w = Prepare(kWeightStep, args.w, call, /*with_mask=*/false, scratch, stream).values;
    LinearForward({.x = x, .w = w, .bias = args.bias, .y = args.y, .workspace = scratch.Rest()}, stream);
  }

  void Backward(const LinearCall& call, const LinearBackwardArgs& args, Stream& stream) const override {
    Scratch scratch(args.workspace);
    const Prepared x = Prepare(kActivationStep, args.x, call, /*with_mask=*/true, scratch, stream);
    const Prepared w = Prepare(kWeightStep, args.w, call, /*with_mask=*/true, scratch, stream);
    if (learns_ && !args.accumulate) Fill({.y = args.dparameters}, stream);

    // In f32 the rotation is undone in place.
    const bool rotates_rounded = operands_.activation.rotate_group != 0 && args.dx.dtype() != DType::kF32;
    const TensorView dx = rotates_rounded ? scratch.Take(DType::kF32, {args.dx.dim(0), args.dx.dim(1)}) : args.dx;
    Gemm({.a = args.dy, .b = w.values, .c = dx, .workspace = scratch.Rest()}, stream);
    AddStepGradient(kActivationStep, args.x, dx, args.x.dim(1), x, call, args, stream);
    BackThrough(operands_.activation, x.mask, dx, args.dx, stream);

    // To add to dw, the product needs a place to be rotated back in: that of the quantized weights, not needed any
    // more.
    const bool needs_place = args.accumulate && !operands_.weight.is_as_stored();
    const TensorView dw =
        needs_place ? TensorView(w.values.data(), DType::kF32, {args.dw.dim(0), args.dw.dim(1)}) : args.dw;
    Gemm({.a = args.dy,
          .b = x.values,
          .c = dw,
          .transpose_a = true,
          .beta = args.accumulate && !needs_place ? 1.0f : 0.0f,
          .workspace = scratch.Rest()},
         stream);
    AddStepGradient(kWeightStep, args.w, dw, args.w.size(), w, call, args, stream);
    BackThrough(operands_.weight, w.mask, dw, dw, stream);
    if (needs_place) Accumulate({.x = dw, .y = args.dw}, stream);
    if (args.db) BiasGradient({.dy = args.dy, .db = args.db, .accumulate = args.accumulate}, stream);
  }

  int64_t ProbeBytes(const LinearSite& site) const override {
    return OperandBytes(site.rows, site.in) + OperandBytes(site.out, site.in);
  }
  LayerMasks Probe(const LinearCall& call, const TensorView& x, const TensorView& w, const TensorView& workspace,
                   Stream& stream) const override {
    Scratch scratch(workspace);
    const TensorView of_x = Prepare(kActivationStep, x, call, /*with_mask=*/true, scratch, stream).mask;
    const TensorView of_w = Prepare(kWeightStep, w, call, /*with_mask=*/true, scratch, stream).mask;
    return {.inputs = CountMasked(of_x, x.dim(1), stream), .weights = CountMasked(of_w, w.dim(1), stream)};
  }

 private:
  // Values as f32, whatever the storage, because a gradient may take their place; steps; mask.
  static int64_t OperandBytes(int64_t rows, int64_t cols) {
    return Scratch::Bytes(DType::kF32, rows * cols) + Scratch::Bytes(DType::kF32, rows) +
           Scratch::Bytes(DType::kU8, rows * PackedBytes(cols, 1)) +
           Scratch::Bytes(DType::kU8, kernels::LsqWorkspaceBytes(rows));
  }
  static int64_t RotatedGradientBytes(const LinearSite& site) {
    return site.storage == DType::kF32 ? 0 : Scratch::Bytes(DType::kF32, site.rows * site.in);
  }

  Prepared Prepare(QuestStep role, const TensorView& v, const LinearCall& call, bool with_mask, Scratch& scratch,
                   Stream& stream) const {
    const QuestOperand& operand = Of(role);
    if (operand.is_as_stored()) return {.values = v, .mask = {}, .workspace = {}};
    const int64_t rows = v.dim(0);
    const int64_t cols = v.dim(1);
    const TensorView memory = scratch.Take(DType::kF32, {rows, cols});
    Prepared prepared;
    prepared.values = TensorView(memory.data(), v.dtype(), {rows, cols});
    const TensorView steps = scratch.Take(DType::kF32, {rows});
    if (with_mask && operand.has_mask()) prepared.mask = scratch.Take(DType::kU8, {rows, PackedBytes(cols, 1)});
    if (operand.learns_step()) {
      prepared.workspace = scratch.Take(DType::kU8, {kernels::LsqWorkspaceBytes(rows)});
      const TensorView step = call.parameters.Slice(role, 1);
      if (call.calibrates) {
        LsqFirstStep({.x = v,
                      .bits = operand.format->bits,
                      .rotate_group = operand.rotate_group,
                      .step = step,
                      .workspace = prepared.workspace},
                     stream);
      }
      LsqRowSteps({.step = step, .steps = steps}, stream);
    }
    QuestValues(operand, {.x = v, .values = prepared.values, .steps = steps, .mask = prepared.mask}, stream);
    return prepared;
  }

  // `gradient`: of the quantized values. Its scale is that of the LSQ paper, 1 / sqrt(count * largest level), with the
  // elements of the weights or the features of the activations as the count.
  void AddStepGradient(QuestStep role, const TensorView& v, const TensorView& gradient, int64_t count,
                       const Prepared& prepared, const LinearCall& call, const LinearBackwardArgs& args,
                       Stream& stream) const {
    const QuestOperand& operand = Of(role);
    if (!operand.learns_step()) return;
    const double half_levels = 0.5 * ((1 << operand.format->bits) - 1);
    LsqStepGradient({.x = v,
                     .bits = operand.format->bits,
                     .rotate_group = operand.rotate_group,
                     .step = call.parameters.Slice(role, 1),
                     .gradient = gradient,
                     .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(count) * half_levels)),
                     .step_gradient = args.dparameters.Slice(role, 1),
                     .workspace = prepared.workspace},
                    stream);
  }

  const QuestOperand& Of(QuestStep role) const { return role == kWeightStep ? operands_.weight : operands_.activation; }

  const QuestOperands operands_;
  const bool learns_;  // steps
};

}  // namespace

std::unique_ptr<LinearScheme> MakeQuestScheme(const spec::LinearQuest& options) {
  return std::make_unique<QuestScheme>(options);
}

std::unique_ptr<MaskProbe> MakeQuestMaskProbe(const spec::LinearQuest& options) {
  const QuestOperands operands = OperandsOf(options);
  if (!operands.activation.has_mask() && !operands.weight.has_mask()) return nullptr;
  return std::make_unique<QuestScheme>(options);
}

}  // namespace trainyard::linear
