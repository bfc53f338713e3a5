#include "kernels/norm/channel_norm.h"

#include "kernels/core/dispatch.h"
#include "kernels/norm/channel_norm_internal.h"

namespace trainyard::kernels {
namespace {

template <typename Args>
void CheckShapes(const Args& args) {
  TY_CHECK_EQ(args.x.rank(), 3);
  TY_CHECK_GE(args.x.size(), 1);
  TY_CHECK_GE(args.groups, 1);
  TY_CHECK_EQ(args.x.dim(1) % args.groups, 0);
  TY_CHECK_EQ(args.w.size(), args.x.dim(1));
  const int64_t sets = ChannelNormStatisticsCount(args.kind, args.groups, args.x.dim(0), args.x.dim(1));
  TY_CHECK_EQ(args.mean.size(), sets);
  TY_CHECK_EQ(args.inv_std.size(), sets);
}

}  // namespace

void ChannelNormForward(const ChannelNormForwardArgs& args, Stream& stream) {
  CheckShapes(args);
  TY_CHECK_EQ(args.y.size(), args.x.size());
  TY_CHECK_EQ(args.b.size(), args.x.dim(1));
  TY_SELECT(stream, ChannelNormForward)(args, stream);
}

void ChannelNormBackward(const ChannelNormBackwardArgs& args, Stream& stream) {
  CheckShapes(args);
  TY_CHECK_EQ(args.dy.size(), args.x.size());
  TY_CHECK_EQ(args.dx.size(), args.x.size());
  if (args.accumulate) TY_CHECK(args.dx.data() != args.dy.data());
  TY_CHECK(static_cast<bool>(args.dw) == static_cast<bool>(args.db));
  if (args.dw) TY_CHECK_EQ(args.dw.size(), args.x.dim(1));
  if (args.db) TY_CHECK_EQ(args.db.size(), args.x.dim(1));
  TY_CHECK_GE(args.workspace.bytes(), ChannelNormBackwardWorkspaceBytes(args.x.dim(0), args.x.dim(1)));
  TY_SELECT(stream, ChannelNormBackward)(args, stream);
}

int64_t ChannelNormStatisticsCount(ChannelNormKind kind, int64_t groups, int64_t batch, int64_t channels) {
  return kind == ChannelNormKind::kGroup ? batch * groups : channels;
}

// Two sums a row of pixels.
int64_t ChannelNormBackwardWorkspaceBytes(int64_t batch, int64_t channels) {
  return 2 * batch * channels * static_cast<int64_t>(sizeof(float));
}

}  // namespace trainyard::kernels
