// Children of a genome (DarwinLM's code, evo_struct_prune_search.py): the smaller of two uniform draws from 1 ..
// max_flips says how often to flip; a flip chooses a group (attention or MLP, by its number of modules), one of its
// modules that can go down a level and one that can go up, which may be the same, and moves both. So the sum of levels
// in each group stays.
//
// Beside the authors' rules a child is refused that would leave the parameter target: sums of levels do not fix the
// count where steps are unequal.
//
// Everything is a function of (seed, generation): Philox words, no state.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/philox.h"
#include "worker/prune/search/genome.h"

namespace trainyard::prune {

struct MutationRules {
  int32_t levels = 2;
  int32_t max_flips = 3;
  // A child's parameters are within `tolerance` * `target_parameters` of the target. Without a table nothing is
  // refused.
  const ParameterTable* parameters = nullptr;  // borrowed
  int64_t target_parameters = 0;
  double tolerance = 0;
};

// The words of one purpose, one after the other.
class RandomWords {
 public:
  explicit RandomWords(const kernels::PhiloxKey& key) : key_(key) {}
  // Uniform in 0 .. count - 1, up to 2^-32 count.
  int64_t Below(int64_t count) {
    return static_cast<int64_t>((uint64_t{RandomWord(key_, next_++)} * static_cast<uint64_t>(count)) >> 32);
  }

 private:
  const kernels::PhiloxKey key_;
  uint64_t next_ = 0;
};

// 1 .. max_flips: k with probability (2 (max_flips - k) + 1) / max_flips^2.
int32_t DrawFlips(int32_t max_flips, RandomWords& words);

// One mutation, which may give the parent again.
Genome Mutate(const Genome& parent, const MutationRules& rules, RandomWords& words);

// |parameters - target| <= tolerance * target; true without a table.
bool IsWithinTarget(const Genome& genome, const MutationRules& rules);

// At most `count` children: different from the parent and from each other, within the target. Fewer where so many
// cannot be found in 1000 + 100 * count tries.
std::vector<Genome> Offspring(const Genome& parent, int32_t count, const MutationRules& rules, uint64_t seed,
                              int64_t generation);

}  // namespace trainyard::prune
