#include "kernels/prune/mask.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace internal {

void MaskApplyCpu(const MaskApplyArgs& args, Stream& stream);
void MaskCompareCpu(const MaskCompareArgs& args, Stream& stream);
void MaskReplaceCpu(const MaskReplaceArgs& args, Stream& stream);
void MaskApplyCuda(const MaskApplyArgs& args, Stream& stream);
void MaskCompareCuda(const MaskCompareArgs& args, Stream& stream);
void MaskReplaceCuda(const MaskReplaceArgs& args, Stream& stream);

}  // namespace internal

void MaskApply(const MaskApplyArgs& args, Stream& stream) {
  TY_CHECK(args.x.dtype() == DType::kF32 || args.x.dtype() == DType::kBF16);
  TY_CHECK_EQ(args.mask.size(), MaskBytes(args.x.size()));
  TY_SELECT(stream, MaskApply)(args, stream);
}

void MaskCompare(const MaskCompareArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.a.size(), args.b.size());
  TY_CHECK_EQ(args.counts.size(), 3);
  TY_SELECT(stream, MaskCompare)(args, stream);
}

void MaskReplace(const MaskReplaceArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.mask.size(), args.next.size());
  TY_CHECK_EQ(args.counts.size(), 3);
  TY_SELECT(stream, MaskReplace)(args, stream);
}

}  // namespace trainyard::kernels
