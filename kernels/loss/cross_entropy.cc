#include "kernels/loss/cross_entropy.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/loss/cross_entropy_internal.h"

namespace trainyard::kernels {
namespace {

void Check(const CrossEntropyArgs& args) {
  TY_CHECK_EQ(args.logits.rank(), 2);
  TY_CHECK_GE(args.logits.dim(1), 1);
  TY_CHECK(args.targets.dtype() == DType::kI32);
  TY_CHECK(args.losses.dtype() == DType::kF32);
  TY_CHECK_EQ(args.targets.size(), args.logits.dim(0));
  TY_CHECK_EQ(args.losses.size(), args.logits.dim(0));
  if (args.weights) TY_CHECK_EQ(args.weights.size(), args.logits.dim(0));
}

}  // namespace

void CrossEntropyForward(const CrossEntropyArgs& args, Stream& stream) {
  Check(args);
  TY_SELECT(stream, CrossEntropyForward)(args, stream);
}

void CrossEntropyForwardBackward(const CrossEntropyArgs& args, Stream& stream) {
  Check(args);
  TY_SELECT(stream, CrossEntropyForwardBackward)(args, stream);
}

}  // namespace trainyard::kernels
