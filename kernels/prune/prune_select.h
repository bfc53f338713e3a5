// Which elements of a tensor are pruned: the lowest scores, exactly as many as asked for (shared/methods/elsa.md 2.3).
//
//   score = |w|, or w^2 F fisher_factor with a diagonal F >= 0: then z = w where kept minimises sum F (z - w)^2
//
// Equal scores are ordered by |w| (w^2 F underflows early in training, when F is tiny), equal magnitudes by index, the
// lower index pruned first. As a 64-bit key: the bits of the score above those of |w|; without F those of |w| above
// zeros, so that 8 digits (4 without F) decide. NaN counts as largest.
//
//   PruneHistogram  counts of one digit, for RadixSelect
//   PruneEqual      how many keys equal one
//   PruneMask       prunes keys below the threshold's and the first `ties` of those equal to it
//   PruneGroups     N:M: of each `group` consecutive elements, those with the highest `keep` keys are kept
//
// Counts are of whole numbers and masks follow from keys alone: the same bits for any number of threads or shards.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/prune/mask.h"
#include "kernels/prune/radix_select.h"

namespace trainyard::kernels {

struct PruneScore {
  TensorView w;            // f32 (n), n < 2^32
  TensorView fisher = {};  // optional (n): f32, or u8 codes of second moments (kernels/optim/blockwise/moment8.h)
  TensorView fisher_scales = {};  // f32, of the codes' blocks
  float fisher_factor = 1.0f;

  int digits() const { return fisher ? 8 : 4; }
};

struct PruneHistogramArgs {
  PruneScore score;
  RadixDigit digit;
  TensorView counts;  // u32 (256), overwritten
};
void PruneHistogram(const PruneHistogramArgs& args, Stream& stream);

struct PruneEqualArgs {
  PruneScore score;
  uint64_t key = 0;
  TensorView count;  // u32 (1), overwritten
};
void PruneEqual(const PruneEqualArgs& args, Stream& stream);

struct PruneMaskArgs {
  PruneScore score;
  SelectThreshold threshold;  // with the ties that are this tensor's
  TensorView mask;            // u8 (MaskBytes), overwritten
  TensorView counts;          // u32 (256), scratch: ties in each of so many pieces
};
void PruneMask(const PruneMaskArgs& args, Stream& stream);

struct PruneGroupsArgs {
  PruneScore score;  // groups do not cross rows if `group` divides the row length: the caller's to see to
  int keep = 2;      // 1..group - 1
  int group = 4;     // 2..16, divides n
  TensorView mask;   // u8 (MaskBytes), overwritten
};
void PruneGroups(const PruneGroupsArgs& args, Stream& stream);

// The threshold below which the `count` lowest keys of all `scores` together lie: the passes above, in one process.
// counts: u32 (256), scratch. Waits for the device, once a digit and tensor: the host chooses the next digit.
SelectThreshold FindPruneThreshold(absl::Span<const PruneScore> scores, int64_t count, const TensorView& counts,
                                   Stream& stream);

// Masks of all `scores` with the `count` lowest keys among them pruned, ties in the order of the tensors. Waits for the
// device as FindPruneThreshold does, and for each tensor that shares ties with one behind it.
void PruneLowest(absl::Span<const PruneScore> scores, int64_t count, absl::Span<const TensorView> masks,
                 const TensorView& counts, Stream& stream);

}  // namespace trainyard::kernels
