// What a search for a structure decides: a level of removal for each module (DarwinLM, arXiv:2502.07780; released code,
// evo_struct_prune_search.py), and what a choice of levels costs.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

namespace trainyard::prune {

// One level a block; 0: as it is, the last: no such module.
struct Genome {
  std::vector<int32_t> attention;
  std::vector<int32_t> mlp;

  // Any fixed order: ties between equally good genomes are settled by it.
  friend auto operator<=>(const Genome&, const Genome&) = default;
  friend bool operator==(const Genome&, const Genome&) = default;
};

// Numbers by module and level: parameters, errors.
template <typename T>
struct LevelTable {
  std::vector<std::vector<T>> attention, mlp;  // [block][level]

  T Sum(const Genome& genome) const {
    T sum = {};
    for (size_t i = 0; i < genome.attention.size(); ++i) {
      sum += attention[i][static_cast<size_t>(genome.attention[i])];
    }
    for (size_t i = 0; i < genome.mlp.size(); ++i) sum += mlp[i][static_cast<size_t>(genome.mlp[i])];
    return sum;
  }
};

// Parameters of the model a genome makes.
struct ParameterTable {
  int64_t fixed = 0;            // of what is never pruned
  LevelTable<int64_t> modules;  // falling from level to level

  int64_t Count(const Genome& genome) const { return fixed + modules.Sum(genome); }
  int32_t levels() const {
    const auto& some = modules.attention.empty() ? modules.mlp : modules.attention;
    return some.empty() ? 0 : static_cast<int32_t>(some.front().size());
  }
};

}  // namespace trainyard::prune
