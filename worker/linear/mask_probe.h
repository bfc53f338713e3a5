// What the gradient masks of a scheme stop: elements of a layer's operands that lie outside the trust or clip region,
// and whose gradient is therefore zero (quest.md 2.3, quartet.md 2.4). A forward does not need the masks, so they are
// made for this alone, which costs a pass over both operands.
#pragma once

#include <cstdint>

#include "worker/linear/linear_scheme.h"

namespace trainyard::linear {

struct MaskedElements {
  int64_t masked = 0;
  int64_t all = 0;  // 0: the operand has no mask

  void Add(const MaskedElements& other) {
    masked += other.masked;
    all += other.all;
  }
};

struct LayerMasks {
  MaskedElements inputs, weights;
};

// Immutable, and the same counts for any number of threads.
class MaskProbe {
 public:
  virtual ~MaskProbe() = default;

  virtual int64_t ProbeBytes(const LinearSite& site) const = 0;  // of workspace, at most

  // x, w: as in the forward of `call`.
  virtual LayerMasks Probe(const LinearCall& call, const kernels::TensorView& x, const kernels::TensorView& w,
                           const kernels::TensorView& workspace, kernels::Stream& stream) const = 0;
};

// Counts the zeros of a mask of (rows, cols) elements, u8 (rows, PackedBytes(cols, 1)) with zeros behind a row's last
// element. An absent mask stops nothing and counts nothing.
MaskedElements CountMasked(const kernels::TensorView& mask, int64_t cols, kernels::Stream& stream);

}  // namespace trainyard::linear
