// Makes tensors whole of which each rank has its own part (ShardMap), by sending the parts to all.
//
// Bytes are moved, nothing is computed: afterwards all ranks hold equal bits. Tensors travel in runs (CutIntoRuns), a
// long one in place, short ones packed. Allocates nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "worker/comm/communicator.h"
#include "worker/comm/shard_map.h"

namespace trainyard::comm {

class PartGather {
 public:
  // `tensors` are whole, of any dtypes, as many and as long as those of `map`.
  PartGather(std::vector<kernels::TensorView> tensors, ShardMap map, int rank);

  // Memory for packed runs.
  int64_t WorkspaceBytes() const;
  // By one call, to other ranks.
  int64_t BytesSent() const;

  // Collective. `workspace`: u8, WorkspaceBytes() of the stream's device. Waits for the stream where it has to; has
  // ended when `stream` has.
  absl::Status Gather(const kernels::TensorView& workspace, Communicator& communicator, kernels::Stream& stream) const;

 private:
  struct Run {
    size_t first = 0, last = 0;
    bool is_packed = false;
    std::vector<int64_t> bytes;  // by rank
    int64_t own_begin = 0;       // bytes before this rank's
    int64_t total_bytes = 0;
  };

  enum class Direction { kPackOwn, kUnpackOthers };
  void Move(const Run& run, Direction direction, char* packed, kernels::Stream& stream) const;
  kernels::TensorView BytesOf(size_t tensor, int rank) const;

  const std::vector<kernels::TensorView> tensors_;
  const ShardMap map_;
  const int rank_;
  std::vector<Run> runs_;
};

}  // namespace trainyard::comm
