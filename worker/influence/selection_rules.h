// Which samples to take by their scores for each target sample (influence-distillation.md 2.7, step 4).
//
// Scores: (samples, targets). Samples are numbered in the order of their ids, and equal scores are told apart by that
// number, so the result depends on the ids and not on the order of the pool. A sample whose scores are not finite is
// never taken.
#pragma once

#include <cstdint>
#include <vector>

namespace trainyard::influence {

struct ScoreTable {
  const double* scores = nullptr;
  int64_t samples = 0;
  int64_t targets = 0;

  double at(int64_t sample, int64_t target) const { return scores[sample * targets + target]; }
};

struct Selected {
  int64_t sample = 0;
  double score = 0;  // at which it was taken
  int64_t round = 0;
};
inline bool operator==(const Selected& a, const Selected& b) {
  return a.sample == b.sample && a.score == b.score && a.round == b.round;
}

// In rounds: each visits all targets in a fresh random order, keyed by (seed, round), and each takes its best sample
// that nobody has taken. Ends at `count`, or when no sample is left.
std::vector<Selected> SelectRoundRobin(const ScoreTable& table, int64_t count, uint64_t seed);

// The `count` best by the mean, or the maximum, over the targets; round 0.
std::vector<Selected> SelectTopMean(const ScoreTable& table, int64_t count);
std::vector<Selected> SelectTopMax(const ScoreTable& table, int64_t count);

// Spearman's rank correlation (mean ranks of ties) and the coefficient of determination 1 - |y - f|^2 / |y - mean|^2.
// 0 if there are fewer than two numbers or one of the two is constant.
double SpearmanCorrelation(const std::vector<double>& a, const std::vector<double>& b);
double Determination(const std::vector<double>& actual, const std::vector<double>& predicted);

}  // namespace trainyard::influence
