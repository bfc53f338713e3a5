#include "worker/comm/shard_map.h"

namespace trainyard::comm {

std::vector<TensorRun> CutIntoRuns(const std::vector<int64_t>& bytes) {
  std::vector<TensorRun> runs;
  int64_t run_bytes = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (runs.empty() || run_bytes + bytes[i] > kTensorRunBytes) {
      runs.push_back({i, i});
      run_bytes = 0;
    }
    runs.back().last = i + 1;
    run_bytes += bytes[i];
  }
  return runs;
}

}  // namespace trainyard::comm
