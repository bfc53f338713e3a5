// Which rank keeps which elements of which tensor, where ranks share the state of a training out among them. A pure
// function of sizes and ranks, so nobody has to tell.
//
// A tensor of n elements is cut into grains of ShardGrain(n) elements, and each rank gets a run of whole grains, as
// equal as possible, the lower ranks first and longest. A tensor of few grains leaves higher ranks without a part.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "worker/comm/partition.h"

namespace trainyard::comm {

inline constexpr int64_t kLeastShardGrain = 128;  // an E4M3 moment's scale is for as many
inline constexpr int64_t kMostShardGrain = 1 << 15;

// A power of two; of large tensors about a thousandth, so that shares are even and what is kept by grain (partial sums
// of a norm) is little. It does not depend on the ranks: sums by grain are the same for any number of them.
inline int64_t ShardGrain(int64_t elements) {
  int64_t grain = kLeastShardGrain;
  while (grain < kMostShardGrain && grain * 1024 < elements) grain *= 2;
  return grain;
}

class ShardMap {
 public:
  // Elements of each tensor, all above 0; ranks >= 1. With one rank it keeps everything.
  ShardMap(std::vector<int64_t> sizes, int ranks) : sizes_(std::move(sizes)), ranks_(ranks) {}

  int ranks() const { return ranks_; }
  size_t tensors() const { return sizes_.size(); }
  int64_t size(size_t tensor) const { return sizes_[tensor]; }

  // The elements of `tensor` that `rank` keeps. Over the ranks in order, they cover it.
  Part part(size_t tensor, int rank) const {
    return PartInGrains(sizes_[tensor], ShardGrain(sizes_[tensor]), ranks_, rank);
  }
  // How many grains these are, the last of which may be short.
  int64_t grains(size_t tensor, int rank) const {
    const int64_t grain = ShardGrain(sizes_[tensor]);
    return (part(tensor, rank).size() + grain - 1) / grain;
  }

 private:
  std::vector<int64_t> sizes_;
  int ranks_ = 1;
};

// Tensors first .. last - 1, which travel in one message to each rank.
struct TensorRun {
  size_t first = 0;
  size_t last = 0;
};

// Below this, a message costs more than its bytes.
inline constexpr int64_t kTensorRunBytes = 256 << 10;

// Cuts the list, by bytes of each, into runs of at most kTensorRunBytes. A longer tensor is a run of its own, which can
// travel from where it lies; the others have to be packed.
std::vector<TensorRun> CutIntoRuns(const std::vector<int64_t>& bytes);

}  // namespace trainyard::comm
