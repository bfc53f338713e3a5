#include "kernels/quant/quest.h"

#include "kernels/core/dispatch.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/quest_internal.h"
#include "kernels/transform/hadamard.h"

namespace trainyard::kernels {
namespace {

void CheckRows(const TensorView& rows, int64_t count) {
  TY_CHECK_EQ(rows.rank(), 1);
  TY_CHECK_EQ(rows.dim(0), count);
}

void CheckBits(const TensorView& bits, const TensorView& of) {
  TY_CHECK_EQ(bits.rank(), 2);
  TY_CHECK_EQ(bits.dim(0), of.dim(0));
  TY_CHECK_EQ(bits.dim(1), PackedBytes(of.dim(1), 1));
}

}  // namespace

float QuestFormat::Alpha() const {
  if (grid == QuestGrid::kFp4) return static_cast<float>(kQuestClipFp4);
  TY_CHECK(bits >= 1 && bits <= 8);
  return static_cast<float>(kQuestClip[bits]);
}

void QuestQuantize(const QuestQuantizeArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.v.rank(), 2);
  TY_CHECK(internal::IsFloatStorage(args.v));
  CheckRows(args.steps, args.v.dim(0));
  if (args.values) {
    TY_CHECK(SameShape(args.values, args.v));
    TY_CHECK(internal::IsFloatStorage(args.values));
    TY_CHECK(args.values.data() != args.v.data() || args.values.dtype() == args.v.dtype());
  }
  if (args.rotate_group != 0) {
    TY_CHECK(IsHadamardGroup(args.rotate_group));
    TY_CHECK_LE(args.rotate_group, internal::kFloatBlock);
    TY_CHECK_EQ(args.v.dim(1) % args.rotate_group, 0);
  }
  if (args.codes) TY_CHECK(SameShape(args.codes, args.v));
  if (args.mask) CheckBits(args.mask, args.v);
  if (args.format.is_2_4_sparse) {
    TY_CHECK_EQ(args.v.dim(1) % 8, 0);
    TY_CHECK(!args.code_sums);
    if (args.kept) CheckBits(args.kept, args.v);
  } else {
    TY_CHECK(!args.kept);
  }
  if (args.code_sums) {
    TY_CHECK(args.format.grid == QuestGrid::kInt);
    CheckRows(args.code_sums, args.v.dim(0));
  }
  TY_SELECT(stream, QuestQuantize)(args, stream);
}

void QuestDequantize(const QuestDequantizeArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.codes.rank(), 2);
  CheckRows(args.steps, args.codes.dim(0));
  TY_CHECK(SameShape(args.values, args.codes));
  TY_CHECK(internal::IsFloatStorage(args.values));
  if (args.kept) CheckBits(args.kept, args.codes);
  TY_SELECT(stream, QuestDequantize)(args, stream);
}

}  // namespace trainyard::kernels
