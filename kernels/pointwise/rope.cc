#include "kernels/pointwise/rope.h"

#include "kernels/core/dispatch.h"
#include "kernels/pointwise/rope_internal.h"

namespace trainyard::kernels {
namespace {

void CheckArgs(const RopeArgs& args) {
  const int64_t width = (args.q_heads + 2 * args.kv_heads) * args.head_dim;
  TY_CHECK_GE(args.batch, 1);
  TY_CHECK_GT(width, 0);
  TY_CHECK_EQ(args.head_dim % 2, 0);
  TY_CHECK_EQ(args.qkv.size() % (args.batch * width), 0);
  const int64_t seq = args.qkv.size() / (args.batch * width);
  TY_CHECK_EQ(args.table.rank(), 3);
  TY_CHECK_EQ(args.table.dim(1), args.head_dim / 2);
  TY_CHECK_EQ(args.table.dim(2), 2);
  TY_CHECK_GE(args.position_offset, 0);
  TY_CHECK_LE(args.position_offset + seq, args.table.dim(0));
}

}  // namespace

void RopeTable(const RopeTableArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.head_dim % 2, 0);
  TY_CHECK_EQ(args.table.rank(), 3);
  TY_CHECK_EQ(args.table.dim(1), args.head_dim / 2);
  TY_CHECK_EQ(args.table.dim(2), 2);
  TY_SELECT_HOST(stream, RopeTable)(args, stream);
}

void RopeForward(const RopeArgs& args, Stream& stream) {
  CheckArgs(args);
  TY_CHECK(!args.amax);
  TY_SELECT(stream, RopeForward)(args, stream);
}

void RopeBackward(const RopeArgs& args, Stream& stream) {
  CheckArgs(args);
  TY_SELECT(stream, RopeBackward)(args, stream);
}

}  // namespace trainyard::kernels
