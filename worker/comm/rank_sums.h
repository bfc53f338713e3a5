// Sums of a few f64 numbers over the ranks: losses, step sizes' terms. In rank order, so the same bits on all ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"

namespace trainyard::comm {

class RankSums {
 public:
  // Of up to `most` numbers a call. `communicator` is borrowed.
  RankSums(Communicator* communicator, int most);

  // Collective; in place. Allocates nothing.
  absl::Status Sum(double* values, int count);

 private:
  Communicator* const communicator_;
  std::vector<int64_t> bytes_;  // by rank
  std::vector<double> gathered_;
};

}  // namespace trainyard::comm
