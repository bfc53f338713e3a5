// What the calls of an element-wise optimizer's op update: parameters, one a call; or, where state of the optimizer
// lives on the host (training.offload), pieces of them, which visit the device (staged_pieces.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "worker/optim/moments.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/staged_pieces.h"

namespace trainyard::optim {

// Elements of one parameter. Views are on the device; those of what the optimizer or the parameter has not are absent.
struct UpdatePiece {
  const OptimizerParameter* parameter = nullptr;
  kernels::TensorView weight, master, gradient;
  std::vector<kernels::TensorView> state;  // as UpdatePieces was given them
  int64_t first_element = 0;               // of the tensor that the parameter is, or is a shard of
};

// One kind of state of an optimizer.
struct UpdatedState {
  std::vector<kernels::TensorView> tensors;  // by parameter; absent where there is none
  int64_t stride = 1;                        // elements of the parameter for one of the state
  Place place = Place::kDevice;
};

// Elements of a piece of parameters with so many in all: a multiple of 128, so that it begins where groups of moments
// do; about a 64th, so that the buffers are small beside what they serve, but few enough for large networks that a copy
// takes far longer than its launch.
int64_t PieceElements(int64_t elements);

class UpdatePieces {
 public:
  // `parameters` is borrowed; where `masters` are on the host, so are all that there are. Pieces are whole parameters
  // if everything is on the device.
  UpdatePieces(const std::vector<OptimizerParameter>& parameters, std::vector<UpdatedState> states, Place masters,
               kernels::Arena& arena);

  // Has `update` enqueue each piece's update on `stream`, in the order of parameters and elements.
  void ForEach(kernels::Stream& stream, absl::FunctionRef<void(const UpdatePiece& piece)> update) const;

 private:
  std::vector<UpdatePiece> pieces_;
  std::unique_ptr<StagedPieces> staged_;  // null if nothing is on the host
};

}  // namespace trainyard::optim
