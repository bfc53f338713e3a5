#include "worker/prune/search/mutation.h"

#include <algorithm>
#include <cmath>

namespace trainyard::prune {
namespace {

// One of the modules that `can` holds for, or -1.
template <typename Can>
int64_t ChooseModule(const std::vector<int32_t>& levels, const Can& can, RandomWords& words) {
  std::vector<int64_t> modules;
  for (size_t i = 0; i < levels.size(); ++i) {
    if (can(levels[i])) modules.push_back(static_cast<int64_t>(i));
  }
  if (modules.empty()) return -1;
  return modules[static_cast<size_t>(words.Below(static_cast<int64_t>(modules.size())))];
}

}  // namespace

int32_t DrawFlips(int32_t max_flips, RandomWords& words) {
  const int64_t first = words.Below(max_flips), second = words.Below(max_flips);
  return static_cast<int32_t>(std::min(first, second)) + 1;
}

Genome Mutate(const Genome& parent, const MutationRules& rules, RandomWords& words) {
  Genome child = parent;
  const int64_t modules = static_cast<int64_t>(parent.attention.size() + parent.mlp.size());
  const int32_t flips = DrawFlips(rules.max_flips, words);
  for (int32_t flip = 0; flip < flips && modules > 0; ++flip) {
    const bool is_attention = words.Below(modules) < static_cast<int64_t>(parent.attention.size());
    std::vector<int32_t>& group = is_attention ? child.attention : child.mlp;
    const int64_t down = ChooseModule(
        group, [](int32_t level) { return level > 0; }, words);
    const int64_t up = ChooseModule(
        group, [&](int32_t level) { return level < rules.levels - 1; }, words);
    if (down < 0 || up < 0) continue;
    --group[static_cast<size_t>(down)];
    ++group[static_cast<size_t>(up)];
  }
  return child;
}

bool IsWithinTarget(const Genome& genome, const MutationRules& rules) {
  if (rules.parameters == nullptr) return true;
  const auto distance = static_cast<double>(std::abs(rules.parameters->Count(genome) - rules.target_parameters));
  return distance <= rules.tolerance * static_cast<double>(rules.target_parameters);
}

std::vector<Genome> Offspring(const Genome& parent, int32_t count, const MutationRules& rules, uint64_t seed,
                              int64_t generation) {
  std::vector<Genome> children;
  const int64_t tries = 1000 + int64_t{100} * count;
  for (int64_t i = 0; i < tries && static_cast<int32_t>(children.size()) < count; ++i) {
    RandomWords words({.seed = seed,
                       .step = static_cast<uint32_t>(generation),
                       .purpose = kernels::kRandomPruneSearch,
                       .tensor = static_cast<uint32_t>(i)});
    Genome child = Mutate(parent, rules, words);
    if (child == parent || !IsWithinTarget(child, rules)) continue;
    if (std::find(children.begin(), children.end(), child) != children.end()) continue;
    children.push_back(std::move(child));
  }
  return children;
}

}  // namespace trainyard::prune
