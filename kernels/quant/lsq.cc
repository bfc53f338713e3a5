#include "kernels/quant/lsq.h"

#include "kernels/core/dispatch.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/lsq_internal.h"
#include "kernels/transform/hadamard.h"

namespace trainyard::kernels {
namespace {

void CheckOperand(const TensorView& x, int bits, int64_t rotate_group, const TensorView& workspace) {
  TY_CHECK_EQ(x.rank(), 2);
  TY_CHECK(internal::IsFloatStorage(x));
  TY_CHECK(bits >= 1 && bits <= 8);
  TY_CHECK_GE(workspace.bytes(), LsqWorkspaceBytes(x.dim(0)));
  if (rotate_group == 0) return;
  TY_CHECK(IsHadamardGroup(rotate_group));
  TY_CHECK_LE(rotate_group, internal::kFloatBlock);
  TY_CHECK_EQ(x.dim(1) % rotate_group, 0);
}

}  // namespace

void LsqFirstStep(const LsqFirstStepArgs& args, Stream& stream) {
  CheckOperand(args.x, args.bits, args.rotate_group, args.workspace);
  TY_CHECK_EQ(args.step.size(), 1);
  TY_SELECT(stream, LsqFirstStep)(args, stream);
}

void LsqRowSteps(const LsqRowStepsArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.step.size(), 1);
  TY_CHECK_EQ(args.steps.rank(), 1);
  TY_SELECT(stream, LsqRowSteps)(args, stream);
}

void LsqStepGradient(const LsqStepGradientArgs& args, Stream& stream) {
  CheckOperand(args.x, args.bits, args.rotate_group, args.workspace);
  TY_CHECK_EQ(args.step.size(), 1);
  TY_CHECK_EQ(args.step_gradient.size(), 1);
  TY_CHECK(SameShape(args.gradient, args.x));
  TY_CHECK(internal::IsFloatStorage(args.gradient));
  TY_SELECT(stream, LsqStepGradient)(args, stream);
}

}  // namespace trainyard::kernels
