#include "kernels/optim/error_feedback.h"

#include "kernels/core/dispatch.h"
#include "kernels/optim/error_feedback_internal.h"

namespace trainyard::kernels {
namespace internal {

namespace {

void CheckStore(const FeedbackStore& store, const TensorView& gradient) {
  TY_CHECK_EQ(gradient.rank(), 2);
  TY_CHECK(gradient.dtype() == DType::kF32);
  if (store.bits == 32) {
    TY_CHECK(store.codes.dtype() == DType::kF32);
    TY_CHECK_EQ(store.codes.size(), gradient.size());
    return;
  }
  TY_CHECK(store.bits == 4 || store.bits == 8);
  TY_CHECK(store.codes.dtype() == DType::kU8);
  TY_CHECK_EQ(store.codes.size(), gradient.dim(0) * FeedbackRowBytes(store.bits, gradient.dim(1)));
  for (const TensorView& extremes : {store.min, store.max}) {
    TY_CHECK(extremes.dtype() == DType::kF32);
    TY_CHECK_EQ(extremes.size(), gradient.dim(0));
  }
}

}  // namespace
}  // namespace internal

void AddFeedback(const AddFeedbackArgs& args, Stream& stream) {
  internal::CheckStore(args.store, args.gradient);
  if (args.factor) {
    TY_CHECK(args.factor.dtype() == DType::kF32);
    TY_CHECK_EQ(args.factor.size(), 1);
  }
  TY_SELECT(stream, AddFeedback)(args, stream);
}

void KeepResidual(const KeepResidualArgs& args, Stream& stream) {
  args.selected.Check();
  internal::CheckStore(args.store, args.gradient);
  TY_CHECK_EQ(args.selected.rows(), args.gradient.dim(0));
  TY_CHECK_EQ(args.selected.cols(), args.gradient.dim(1));
  TY_SELECT(stream, KeepResidual)(args, stream);
}

}  // namespace trainyard::kernels
