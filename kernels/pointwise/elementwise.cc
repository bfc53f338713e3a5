#include "kernels/pointwise/elementwise.h"

#include "kernels/core/dispatch.h"
#include "kernels/pointwise/elementwise_internal.h"

namespace trainyard::kernels {

void Add(const AddArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.a.size(), args.y.size());
  TY_CHECK_EQ(args.b.size(), args.y.size());
  TY_CHECK(args.a.dtype() == args.y.dtype());
  TY_CHECK(args.b.dtype() == args.y.dtype());
  TY_SELECT(stream, Add)(args, stream);
}

void Scale(const ScaleArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.size(), args.y.size());
  TY_CHECK(args.x.dtype() == args.y.dtype());
  TY_SELECT(stream, Scale)(args, stream);
}

void Accumulate(const AccumulateArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.size(), args.y.size());
  TY_SELECT(stream, Accumulate)(args, stream);
}

void Fill(const FillArgs& args, Stream& stream) {
  TY_SELECT(stream, Fill)(args, stream);
}

void Convert(const ConvertArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.size(), args.y.size());
  TY_SELECT(stream, Convert)(args, stream);
}

void BiasGradient(const BiasGradientArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.dy.rank(), 2);
  TY_CHECK_EQ(args.db.size(), args.dy.dim(1));
  TY_CHECK(args.db.dtype() == args.dy.dtype() || args.db.dtype() == DType::kF32);
  TY_SELECT(stream, BiasGradient)(args, stream);
}

}  // namespace trainyard::kernels
