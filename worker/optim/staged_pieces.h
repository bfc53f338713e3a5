// State of an optimizer that lives in the host's pinned memory and is updated on the device, a piece at a time.
//
// There are two buffers on the device, which pieces use in turn, each with a queue of copies of its own: what a buffer
// holds is brought, updated, taken home, and then the next but one is brought. So one piece is updated while the next
// is on its way in, and the one before on its way out; a bus carries both ways at once. Nothing waits on the host.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/core/arena.h"
#include "kernels/core/copy_stream.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::optim {

class StagedPieces {
 public:
  // homes[i]: the tensors of piece i where they live; those without data are passed on as they are. Books two buffers,
  // each as long as the longest piece, under "staging". `arena` is of a device other than the CPU.
  StagedPieces(std::vector<std::vector<kernels::TensorView>> homes, kernels::Arena& arena);

  // Where the tensors of a piece are while it is updated, as `homes`.
  const std::vector<kernels::TensorView>& staged(size_t piece) const { return staged_[piece]; }

  // For each piece, in order: `update` is called to enqueue on `stream` what reads and writes staged(piece), and
  // nothing else of the pieces. All tensors are home when `stream` has done what it has by then. Allocates nothing;
  // between two calls the host may read and write the homes.
  void ForEach(kernels::Stream& stream, absl::FunctionRef<void(size_t piece)> update) const;

 private:
  kernels::CopyStream& CopiesOf(size_t piece) const { return *copies_[piece % copies_.size()]; }
  void Bring(size_t piece) const;
  void TakeHome(size_t piece) const;

  const std::vector<std::vector<kernels::TensorView>> homes_;
  std::vector<std::vector<kernels::TensorView>> staged_;
  std::array<std::unique_ptr<kernels::CopyStream>, 2> copies_;  // by buffer; null over a counting arena
};

}  // namespace trainyard::optim
