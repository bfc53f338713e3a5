#include "kernels/transform/hadamard.h"

#include "kernels/core/dispatch.h"
#include "kernels/transform/hadamard_internal.h"

namespace trainyard::kernels {

void Hadamard(const HadamardArgs& args, Stream& stream) {
  TY_CHECK(IsHadamardGroup(args.group));
  TY_CHECK_GE(args.x.rank(), 1);
  TY_CHECK_EQ(args.x.size(), args.y.size());
  const int64_t cols = args.x.dim(args.x.rank() - 1);
  TY_CHECK_EQ(cols % args.group, 0);
  if (args.x.data() == args.y.data()) TY_CHECK(args.x.dtype() == args.y.dtype());
  if (args.signs) {
    TY_CHECK_GE(args.signs.size(), args.group);
    TY_CHECK_EQ(args.signs.size() % args.group, 0);
    TY_CHECK_EQ(cols % args.signs.size(), 0);
  }
  if (args.mask) TY_CHECK_EQ(args.mask.size(), args.x.size() / 8);
  TY_SELECT(stream, Hadamard)(args, stream);
}

void RandomSigns(const RandomSignsArgs& args, Stream& stream) {
  TY_SELECT(stream, RandomSigns)(args, stream);
}

}  // namespace trainyard::kernels
