#include "kernels/optim/eco.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/eco_internal.h"
#include "kernels/quant/coded_matrix_internal.h"

namespace trainyard::kernels {
int64_t EcoPieces(const CodedMatrix& weights) {
  return internal::CutTasks(weights).count;
}

int64_t EcoWorkspaceBytes(const CodedMatrix& weights) {
  const internal::CodeTasks tasks = internal::CutTasks(weights);
  return tasks.has_one_span ? (1 + tasks.count) * static_cast<int64_t>(sizeof(float)) : 0;
}

void Eco(const EcoArgs& args, Stream& stream) {
  CheckCodedMatrix(args.weights);
  const auto check = [&](const TensorView& x) {
    TY_CHECK(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16);
    TY_CHECK_EQ(x.size(), args.weights.size());
  };
  check(args.grad);
  check(args.m);
  if (args.form == EcoForm::kAdamW) check(args.v);
  if (args.form == EcoForm::kSgdmExact) {
    check(args.error);
    TY_CHECK(args.error.dtype() == DType::kF32);
  }
  if (args.gradient_factor) {
    TY_CHECK(args.gradient_factor.dtype() == DType::kF32);
    TY_CHECK_EQ(args.gradient_factor.size(), 1);
  }
  if (args.statistics) {
    TY_CHECK(args.statistics.dtype() == DType::kF32);
    TY_CHECK_EQ(args.statistics.size(), EcoPieces(args.weights) * kEcoStatistics);
  }
  const int64_t workspace_bytes = EcoWorkspaceBytes(args.weights);
  if (workspace_bytes > 0) TY_CHECK_GE(args.workspace ? args.workspace.bytes() : 0, workspace_bytes);
  TY_CHECK(args.weight_value == DType::kF32 || args.weight_value == DType::kBF16);
  TY_CHECK(args.beta1 > 0 && args.beta1 < 1);
  TY_CHECK(args.min_learning_rate > 0);
  TY_CHECK_GE(args.step, 1);
  TY_CHECK_GE(args.first_element, 0);
  TY_SELECT(stream, Eco)(args, stream);
}

}  // namespace trainyard::kernels
