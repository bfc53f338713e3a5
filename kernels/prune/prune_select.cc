#include "kernels/prune/prune_select.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/blockwise/moment8.h"
#include "kernels/prune/prune_select_internal.h"

namespace trainyard::kernels {
namespace {

void Check(const PruneScore& score) {
  TY_CHECK(score.w.dtype() == DType::kF32);
  TY_CHECK_LT(score.w.size(), int64_t{1} << 32);
  if (!score.fisher) return;
  TY_CHECK_EQ(score.fisher.size(), score.w.size());
  TY_CHECK(score.fisher.dtype() == DType::kF32 || score.fisher.dtype() == DType::kU8);
  if (score.fisher.dtype() == DType::kU8) TY_CHECK_EQ(score.fisher_scales.size(), Moment8Blocks(score.w.size()));
}

}  // namespace

void PruneHistogram(const PruneHistogramArgs& args, Stream& stream) {
  Check(args.score);
  TY_CHECK_EQ(args.counts.size(), 256);
  TY_SELECT(stream, PruneHistogram)(args, stream);
}

void PruneEqual(const PruneEqualArgs& args, Stream& stream) {
  Check(args.score);
  TY_CHECK_EQ(args.count.size(), 1);
  TY_SELECT(stream, PruneEqual)(args, stream);
}

void PruneMask(const PruneMaskArgs& args, Stream& stream) {
  Check(args.score);
  TY_CHECK_GE(args.threshold.ties, 0);
  TY_CHECK_EQ(args.mask.size(), MaskBytes(args.score.w.size()));
  TY_CHECK_EQ(args.counts.size(), 256);
  TY_SELECT(stream, PruneMask)(args, stream);
}

void PruneGroups(const PruneGroupsArgs& args, Stream& stream) {
  Check(args.score);
  TY_CHECK_GE(args.group, 2);
  TY_CHECK_LE(args.group, 16);
  TY_CHECK_GE(args.keep, 1);
  TY_CHECK_LT(args.keep, args.group);
  TY_CHECK_EQ(args.score.w.size() % args.group, 0);
  TY_CHECK_EQ(args.mask.size(), MaskBytes(args.score.w.size()));
  TY_SELECT(stream, PruneGroups)(args, stream);
}

SelectThreshold FindPruneThreshold(absl::Span<const PruneScore> scores, int64_t count, const TensorView& counts,
                                   Stream& stream) {
  TY_CHECK(!scores.empty());
  RadixSelect select(count, scores.front().digits());
  while (!select.done()) {
    uint64_t sums[256] = {};
    for (const PruneScore& score : scores) {
      PruneHistogram({.score = score, .digit = select.digit(), .counts = counts}, stream);
      WaitForDevice(stream);
      for (int i = 0; i < 256; ++i) sums[i] += counts.as<uint32_t>()[i];
    }
    select.Take(sums);
  }
  return select.threshold();
}

void PruneLowest(absl::Span<const PruneScore> scores, int64_t count, absl::Span<const TensorView> masks,
                 const TensorView& counts, Stream& stream) {
  TY_CHECK_EQ(scores.size(), masks.size());
  SelectThreshold threshold = FindPruneThreshold(scores, count, counts, stream);
  int64_t left = threshold.ties;
  for (size_t i = 0; i < scores.size(); ++i) {
    threshold.ties = left;
    PruneMask({.score = scores[i], .threshold = threshold, .mask = masks[i], .counts = counts}, stream);
    if (left == kAllTies || i + 1 == scores.size()) continue;
    PruneEqual({.score = scores[i], .key = threshold.key, .count = counts.Slice(0, 1)}, stream);
    WaitForDevice(stream);
    left -= std::min(left, static_cast<int64_t>(*counts.as<uint32_t>()));
  }
}

}  // namespace trainyard::kernels
