#include "worker/influence/selection_rules.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "worker/data/permutation.h"

namespace trainyard::influence {
namespace {

bool IsUsable(const ScoreTable& table, int64_t sample) {
  for (int64_t t = 0; t < table.targets; ++t) {
    if (!std::isfinite(table.at(sample, t))) return false;
  }
  return true;
}

std::vector<uint32_t> UsableSamples(const ScoreTable& table) {
  std::vector<uint32_t> samples;
  for (int64_t i = 0; i < table.samples; ++i) {
    if (IsUsable(table, i)) samples.push_back(static_cast<uint32_t>(i));
  }
  return samples;
}

std::vector<Selected> SelectTop(const ScoreTable& table, int64_t count,
                                const std::function<double(int64_t sample)>& score) {
  std::vector<Selected> order;
  for (const uint32_t sample : UsableSamples(table)) order.push_back({sample, score(sample), 0});
  std::sort(order.begin(), order.end(), [](const Selected& a, const Selected& b) {
    return a.score != b.score ? a.score > b.score : a.sample < b.sample;
  });
  order.resize(std::min(order.size(), static_cast<size_t>(count)));
  return order;
}

std::vector<double> Ranks(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + end - 1) / 2;
    begin = end;
  }
  return ranks;
}

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

std::vector<Selected> SelectRoundRobin(const ScoreTable& table, int64_t count, uint64_t seed) {
  std::vector<Selected> selected;
  const std::vector<uint32_t> usable = UsableSamples(table);
  const auto most = std::min(count, static_cast<int64_t>(usable.size()));
  if (table.targets == 0) return selected;
  // A heap a target, popped only as far as needed.
  std::vector<std::vector<uint32_t>> heaps(static_cast<size_t>(table.targets), usable);
  const auto worse = [&](int64_t target) {
    return [&table, target](uint32_t a, uint32_t b) {
      const double x = table.at(a, target), y = table.at(b, target);
      return x != y ? x < y : a > b;
    };
  };
  for (int64_t t = 0; t < table.targets; ++t) {
    std::make_heap(heaps[static_cast<size_t>(t)].begin(), heaps[static_cast<size_t>(t)].end(), worse(t));
  }
  std::vector<bool> taken(static_cast<size_t>(table.samples));
  for (int64_t round = 0; static_cast<int64_t>(selected.size()) < most; ++round) {
    const data::Permutation order(table.targets, seed, static_cast<uint32_t>(round));
    for (int64_t i = 0; i < table.targets && static_cast<int64_t>(selected.size()) < most; ++i) {
      const int64_t target = order(i);
      std::vector<uint32_t>& heap = heaps[static_cast<size_t>(target)];
      while (taken[heap.front()]) {
        std::pop_heap(heap.begin(), heap.end(), worse(target));
        heap.pop_back();
      }
      taken[heap.front()] = true;
      selected.push_back({heap.front(), table.at(heap.front(), target), round});
    }
  }
  return selected;
}

std::vector<Selected> SelectTopMean(const ScoreTable& table, int64_t count) {
  return SelectTop(table, count, [&](int64_t sample) {
    double sum = 0;
    for (int64_t t = 0; t < table.targets; ++t) sum += table.at(sample, t);
    return sum / static_cast<double>(table.targets);
  });
}

std::vector<Selected> SelectTopMax(const ScoreTable& table, int64_t count) {
  return SelectTop(table, count, [&](int64_t sample) {
    double best = table.at(sample, 0);
    for (int64_t t = 1; t < table.targets; ++t) best = std::max(best, table.at(sample, t));
    return best;
  });
}

double SpearmanCorrelation(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() < 2) return 0;
  const std::vector<double> x = Ranks(a), y = Ranks(b);
  const double mean_x = Mean(x), mean_y = Mean(y);
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean_x) * (y[i] - mean_y);
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    yy += (y[i] - mean_y) * (y[i] - mean_y);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

double Determination(const std::vector<double>& actual, const std::vector<double>& predicted) {
  if (actual.size() < 2) return 0;
  const double mean = Mean(actual);
  double error = 0, variance = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    error += (actual[i] - predicted[i]) * (actual[i] - predicted[i]);
    variance += (actual[i] - mean) * (actual[i] - mean);
  }
  return variance > 0 ? 1 - error / variance : 0;
}

}  // namespace trainyard::influence
