// The (1 + lambda) search over genomes (DarwinLM, arXiv:2502.07780; released code, evo_struct_prune_search.py), without
// anything that computes a fitness.
//
// A generation makes `offspring` children of the one parent and sends them through stages: in each, all candidates are
// measured on the same documents and the best go on. The parent is measured in the last stage only, and the best of
// that stage is the next parent: what was best is never lost but to what was better on the same documents. Ranks are by
// (fitness, genome); lower is better.
//
// A candidate without a fitness, or with one that is not finite, ranks last and never goes on while others can. If the
// parent's own measurement fails, it stays parent. Everything follows from the seed and the fitnesses.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/prune/search/genome.h"
#include "worker/prune/search/mutation.h"

namespace trainyard::prune {

struct EvolutionRules {
  MutationRules mutation;
  int32_t offspring = 16;
  std::vector<int32_t> survivors = {1};  // of each stage
  uint64_t seed = 0;
};

// One generation that is over.
struct GenerationRecord {
  int64_t generation = 0;
  std::optional<double> parent_fitness;  // in the last stage, as best_fitness
  std::optional<double> best_fitness;
  bool is_improved = false;
  int32_t trials = 0;
  int32_t failed_trials = 0;
  int64_t parameters = 0;  // of the new parent; 0 without a table
};

class Evolution {
 public:
  Evolution(EvolutionRules rules, Genome start);

  // Generations that are over. The next one is number generation() + 1.
  int64_t generation() const { return static_cast<int64_t>(history_.size()); }
  const Genome& parent() const { return parent_; }
  std::optional<double> parent_fitness() const { return parent_fitness_; }
  const std::vector<GenerationRecord>& history() const { return history_; }

  // Begins a generation. Then, stage by stage, measure candidates() and Report their fitness in order, until
  // stage() is 0 again.
  void Begin();
  int32_t stage() const { return stage_; }  // 1-based; 0 between generations
  // Empty if no child could be found: then Skip ends the generation.
  const std::vector<Genome>& candidates() const { return candidates_; }
  // FailedPrecondition if none has a fitness; the stage is then as before.
  absl::Status Report(const std::vector<std::optional<double>>& fitness);
  void Skip();

  // Between generations: parent and history as JSON, and back. DataLoss for text that is no such state.
  std::string ToJson() const;
  absl::Status Restore(const std::string& json);

 private:
  void End(GenerationRecord record);

  EvolutionRules rules_;
  Genome parent_;
  std::optional<double> parent_fitness_;
  std::vector<GenerationRecord> history_;
  int32_t stage_ = 0;
  std::vector<Genome> candidates_;
  GenerationRecord current_;
};

// {"attention": [...], "mlp": [...]}.
std::string ToJson(const Genome& genome);

}  // namespace trainyard::prune
