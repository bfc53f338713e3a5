#include "worker/linear/packed_quest_scheme.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "kernels/gemm/linear.h"
#include "kernels/quant/lsq.h"
#include "worker/linear/quest_operands.h"
#include "worker/linear/scratch.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;
using Kind = PackedQuestWeight::Kind;

class PackedQuestScheme final : public LinearScheme {
 public:
  PackedQuestScheme(const spec::LinearQuest& options, std::vector<PackedQuestWeight> weights)
      : activation_(OperandsOf(options).activation), weights_(std::move(weights)) {}

  absl::string_view name() const override { return "quest, packed"; }

  int64_t WorkspaceBytes(const LinearSite& site) const override {
    const int64_t steps = Scratch::Bytes(DType::kF32, site.rows);
    const int64_t codes =
        Scratch::Bytes(DType::kU8, site.rows * site.in) + steps + Scratch::Bytes(DType::kI32, site.rows);
    const int64_t values = Scratch::Bytes(site.storage, site.rows * site.in) + steps +
                           kernels::LinearWorkspaceBytes(site.storage, site.rows, site.in, site.out);
    return std::max(codes, values);
  }

  void Forward(const LinearCall& call, const kernels::LinearForwardArgs& args, Stream& stream) const override {
    const PackedQuestWeight& weight = weights_.at(call.site.index);
    if (weight.kind == Kind::kCodes) {
      ForwardCodes(weight, args, stream);
    } else if (weight.kind == Kind::kDense || activation_.is_as_stored()) {
      LinearForward(args, stream);
    } else {
      ForwardValues(weight, args, stream);
    }
  }

  void Backward(const LinearCall& /*call*/, const LinearBackwardArgs& /*args*/, Stream& /*stream*/) const override {
    TY_CHECK(false);  // codes have no gradient
  }

 private:
  void ForwardCodes(const PackedQuestWeight& weight, const kernels::LinearForwardArgs& args, Stream& stream) const {
    const int64_t rows = args.x.dim(0);
    const int64_t in = args.x.dim(1);
    Scratch scratch(args.workspace);
    const TensorView codes = scratch.Take(DType::kU8, {rows, in});
    const TensorView steps = TakeSteps(weight, rows, scratch, stream);
    const TensorView sums = scratch.Take(DType::kI32, {rows});
    QuestQuantize({.v = args.x,
                   .format = *activation_.format,
                   .rotate_group = activation_.rotate_group,
                   .steps = steps,
                   .codes = codes,
                   .code_sums = sums},
                  stream);
    IntGridLinear({.a = {codes},
                   .b = weight.codes,
                   .depth = in,
                   .a_steps = steps,
                   .b_steps = weight.steps,
                   .a_sums = sums,
                   .b_sums = weight.code_sums,
                   .bias = args.bias,
                   .y = args.y},
                  stream);
  }

  // Room for the activations' steps, which hold the learned one if there is one.
  TensorView TakeSteps(const PackedQuestWeight& weight, int64_t rows, Scratch& scratch, Stream& stream) const {
    const TensorView steps = scratch.Take(DType::kF32, {rows});
    if (activation_.learns_step()) LsqRowSteps({.step = weight.activation_step, .steps = steps}, stream);
    return steps;
  }

  void ForwardValues(const PackedQuestWeight& weight, kernels::LinearForwardArgs args, Stream& stream) const {
    Scratch scratch(args.workspace);
    const TensorView values = scratch.Take(args.x.dtype(), {args.x.dim(0), args.x.dim(1)});
    const TensorView steps = TakeSteps(weight, args.x.dim(0), scratch, stream);
    QuestValues(activation_, {.x = args.x, .values = values, .steps = steps}, stream);
    args.x = values;
    args.workspace = scratch.Rest();
    LinearForward(args, stream);
  }

  const QuestOperand activation_;
  const std::vector<PackedQuestWeight> weights_;
};

}  // namespace

std::unique_ptr<LinearScheme> MakePackedQuestScheme(const spec::LinearQuest& options,
                                                    std::vector<PackedQuestWeight> weights) {
  return std::make_unique<PackedQuestScheme>(options, std::move(weights));
}

}  // namespace trainyard::linear
