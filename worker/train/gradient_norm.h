// The global norm of gradients of which each rank has its part, and the factor that clips them.
//
// Squares are summed by grain of ShardMap, in f64; the sums of all ranks go to all, who add them up in the order of
// tensors and elements. So the bits depend neither on the number of ranks nor on whether gradients are shared out.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/optim/global_norm.h"
#include "worker/comm/communicator.h"
#include "worker/comm/shard_map.h"

namespace trainyard::train {

class GradientNorm {
 public:
  // `parts`: this rank's, by tensor of `map`; no view where it has none. Memory is booked under "workspace".
  GradientNorm(const std::vector<kernels::TensorView>& parts, comm::ShardMap map, int rank, kernels::Arena& arena);

  // Collective if the map has several ranks, of which `communicator` is then one. Waits for the stream. Allocates
  // nothing. `max_norm` as GlobalNormArgs.
  absl::Status Measure(float max_norm, comm::Communicator* communicator, kernels::Stream& stream);

  float norm() const { return norm_; }                                     // of the last Measure
  const kernels::TensorView& clip_factor() const { return clip_factor_; }  // f32 (1)
  // By one Measure, to other ranks.
  int64_t BytesSent() const;

 private:
  const comm::ShardMap map_;
  const int rank_;
  std::vector<kernels::NormPiece> pieces_;
  kernels::TensorView sums_;        // f64 as u8: of all ranks, rank after rank
  std::vector<int64_t> sum_bytes_;  // by rank
  int64_t own_begin_ = 0;           // bytes before this rank's
  std::vector<const double*> cursors_;
  kernels::TensorView clip_factor_;
  float norm_ = 0;
};

}  // namespace trainyard::train
