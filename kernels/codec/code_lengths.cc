#include "kernels/codec/code_lengths.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace trainyard::kernels::internal {
namespace {

// A symbol, or a package of two nodes of the level below.
struct Node {
  int64_t weight;
  int symbol;  // -1: a package
  size_t left, right;
};

bool Lighter(const Node& a, const Node& b) {
  return a.weight < b.weight;
}

}  // namespace

std::vector<uint8_t> CodeLengths(absl::Span<const int64_t> weights, int longest) {
  const size_t count = weights.size();
  TY_CHECK(count >= 2 && count <= size_t{1} << longest);
  std::vector<Node> symbols;
  for (size_t i = 0; i < count; ++i) {
    TY_CHECK_GT(weights[i], int64_t{0});
    symbols.push_back({weights[i], static_cast<int>(i), 0, 0});
  }
  std::stable_sort(symbols.begin(), symbols.end(), Lighter);

  // Level by level: pair what there is, and merge the pairs with the symbols again.
  std::vector<std::vector<Node>> levels = {symbols};
  for (int level = 1; level < longest; ++level) {
    const std::vector<Node>& below = levels.back();
    std::vector<Node> packages;
    for (size_t i = 0; i + 1 < below.size(); i += 2) {
      packages.push_back({below[i].weight + below[i + 1].weight, -1, i, i + 1});
    }
    std::vector<Node> merged(symbols.size() + packages.size());
    std::merge(symbols.begin(), symbols.end(), packages.begin(), packages.end(), merged.begin(), Lighter);
    levels.push_back(std::move(merged));
  }

  // The lightest 2 (count - 1) nodes of the last level: a symbol is as long as the number of times they contain it.
  std::vector<uint8_t> lengths(count, 0);
  std::vector<size_t> chosen(2 * (count - 1));
  std::iota(chosen.begin(), chosen.end(), size_t{0});
  for (size_t level = levels.size(); level-- > 0;) {
    std::vector<size_t> inside;
    for (const size_t index : chosen) {
      const Node& node = levels[level][index];
      if (node.symbol >= 0) {
        ++lengths[static_cast<size_t>(node.symbol)];
      } else {
        inside.push_back(node.left);
        inside.push_back(node.right);
      }
    }
    chosen = std::move(inside);
  }
  return lengths;
}

}  // namespace trainyard::kernels::internal
