#include "worker/ckpt/tensor_division.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace trainyard::ckpt {

std::vector<int> DivideTensors(const std::vector<int64_t>& bytes, int ranks) {
  TY_CHECK_GE(ranks, 1);
  std::vector<size_t> order(bytes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return bytes[a] > bytes[b]; });
  std::vector<int64_t> load(static_cast<size_t>(ranks));
  std::vector<int> owner(bytes.size());
  for (size_t tensor : order) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += bytes[tensor];
    owner[tensor] = static_cast<int>(least - load.begin());
  }
  return owner;
}

int64_t LargestShare(const std::vector<int64_t>& bytes, int ranks) {
  const std::vector<int> owners = DivideTensors(bytes, ranks);
  std::vector<int64_t> of_rank(static_cast<size_t>(ranks));
  for (size_t i = 0; i < bytes.size(); ++i) of_rank[static_cast<size_t>(owners[i])] += bytes[i];
  return *std::max_element(of_rank.begin(), of_rank.end());
}

}  // namespace trainyard::ckpt
