// The inputs of a network's blocks in the host's pinned memory, where they wait for the backward (llmq.md's offloaded
// residuals). With recomputing they are all that a forward keeps of most blocks, so that what the device keeps no
// longer grows with depth.
//
// On the device there are two buffers, which blocks use in turn, each with a queue of copies of its own. In the forward
// an input leaves while its block and the next one compute; in the backward it comes back while the block behind it
// computes. What the forward leaves in the buffers, the last block's input and its output, is what the backward begins
// with: these never leave.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/core/copy_stream.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::model {

class OffloadedInputs {
 public:
  // `inputs`: by block, on the device, alternately in two buffers; no view for a block that has nothing. The last one
  // is no block's input but the last block's output. Places on the host are booked under "activations". `arena` is of a
  // device other than the CPU.
  OffloadedInputs(const std::vector<kernels::TensorView>& inputs, kernels::Arena& arena);

  // All enqueue; none waits. For a block that has nothing they do nothing. After a whole backward the stream is behind
  // all copies.
  //
  // Call before `stream` writes the input of a block but the first, in the order of blocks, and the last one's output.
  void MakeRoom(size_t block, kernels::Stream& stream) const;
  // Call when `stream` has been given what writes it.
  void SendHome(size_t block, kernels::Stream& stream) const;
  // Call in the backward, from the last block to the first, when `stream` has been given all of the blocks behind it:
  // what it is given next finds this block's input in its buffer.
  void Fetch(size_t block, kernels::Stream& stream) const;

 private:
  struct Input {
    kernels::TensorView here, home;  // `home` is absent for those that never leave
    size_t buffer = 0;
    int before = -1;  // the block before it that has anything
  };
  kernels::CopyStream& CopiesOf(const Input& input) const { return *copies_[input.buffer]; }

  std::vector<Input> inputs_;                                   // by block
  std::array<std::unique_ptr<kernels::CopyStream>, 2> copies_;  // by buffer; null over a counting arena
};

}  // namespace trainyard::model
