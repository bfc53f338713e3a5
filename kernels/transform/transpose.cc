#include "kernels/transform/transpose.h"

#include "kernels/core/dispatch.h"
#include "kernels/transform/transpose_internal.h"

namespace trainyard::kernels {

void Transpose(const TransposeArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.rank(), 2);
  TY_CHECK_EQ(args.y.rank(), 2);
  TY_CHECK_EQ(args.x.dim(0), args.y.dim(1));
  TY_CHECK_EQ(args.x.dim(1), args.y.dim(0));
  if (args.group != 0) {
    TY_CHECK(args.group >= 16 && args.group <= kMaxTransposeGroup && (args.group & (args.group - 1)) == 0);
    TY_CHECK_EQ(args.x.dim(0) % args.group, 0);
  }
  if (args.signs) {
    TY_CHECK_GT(args.group, 0);
    TY_CHECK_GE(args.signs.size(), args.group);
    TY_CHECK_EQ(args.signs.size() % args.group, 0);
    TY_CHECK_EQ(args.x.dim(0) % args.signs.size(), 0);
  }
  TY_SELECT(stream, Transpose)(args, stream);
}

}  // namespace trainyard::kernels
