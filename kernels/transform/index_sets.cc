#include "kernels/transform/index_sets.h"

#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace internal {

void TopIndicesCpu(const TopIndicesArgs& args, Stream& stream);
void MatchIndicesCpu(const MatchIndicesArgs& args, Stream& stream);
void TopIndicesCuda(const TopIndicesArgs& args, Stream& stream);
void MatchIndicesCuda(const MatchIndicesArgs& args, Stream& stream);

}  // namespace internal

void TopIndices(const TopIndicesArgs& args, Stream& stream) {
  TY_CHECK(args.scores.dtype() == DType::kF32);
  TY_CHECK(args.indices.dtype() == DType::kI32);
  TY_CHECK_GE(args.scores.size(), args.indices.size());
  TY_SELECT(stream, TopIndices)(args, stream);
}

void MatchIndices(const MatchIndicesArgs& args, Stream& stream) {
  for (const TensorView& list : {args.from, args.to, args.sources}) TY_CHECK(list.dtype() == DType::kI32);
  TY_CHECK_EQ(args.sources.size(), args.to.size());
  TY_SELECT(stream, MatchIndices)(args, stream);
}

}  // namespace trainyard::kernels
