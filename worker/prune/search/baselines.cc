#include "worker/prune/search/baselines.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace trainyard::prune {
namespace {

constexpr int64_t kMostUnits = 65536;

// A module by its place, attention of all blocks before the MLPs.
template <typename Table>
auto& ModuleOf(Table& table, size_t module) {
  return module < table.attention.size() ? table.attention[module] : table.mlp[module - table.attention.size()];
}
size_t ModuleCount(const ParameterTable& parameters) {
  return parameters.modules.attention.size() + parameters.modules.mlp.size();
}

Genome Uniform(const ParameterTable& parameters, int32_t level) {
  return {std::vector<int32_t>(parameters.modules.attention.size(), level),
          std::vector<int32_t>(parameters.modules.mlp.size(), level)};
}

}  // namespace

Genome UniformGenome(size_t blocks, int32_t level) {
  return {std::vector<int32_t>(blocks, level), std::vector<int32_t>(blocks, level)};
}

absl::StatusOr<Genome> GenomeForParameters(const ParameterTable& parameters, int64_t target, double tolerance) {
  const int32_t levels = parameters.levels();
  const auto distance = [&](const Genome& genome) { return std::abs(parameters.Count(genome) - target); };
  const double allowed = tolerance * static_cast<double>(target);
  Genome best = Uniform(parameters, 0);
  for (int32_t level = 1; level < levels; ++level) {
    Genome genome = Uniform(parameters, level);
    if (distance(genome) < distance(best)) best = std::move(genome);
  }
  while (static_cast<double>(distance(best)) > allowed) {
    Genome next = best;
    for (size_t i = ModuleCount(parameters); i-- > 0;) {
      for (const int32_t step : {1, -1}) {
        Genome moved = best;
        int32_t& level = ModuleOf(moved, i);
        level += step;
        if (level >= 0 && level < levels && distance(moved) < distance(next)) next = std::move(moved);
      }
    }
    if (next == best) {
      return absl::InvalidArgumentError(absl::StrCat(
          "prune_search.search.target_parameters: ", target, " cannot be reached: the model has between ",
          parameters.Count(Uniform(parameters, levels - 1)), " and ", parameters.Count(Uniform(parameters, 0)),
          " parameters at these levels, the nearest that was found ", parameters.Count(best),
          ", and parameters_tolerance is ", tolerance));
    }
    best = std::move(next);
  }
  return best;
}

absl::StatusOr<Genome> SpdyGenome(const ParameterTable& parameters, const LevelTable<double>& errors, int64_t target) {
  const size_t modules = ModuleCount(parameters);
  int64_t budget = target - parameters.fixed;  // above what is left at the last levels
  int64_t unit = 0, range = 0;
  for (size_t i = 0; i < modules; ++i) {
    const std::vector<int64_t>& costs = ModuleOf(parameters.modules, i);
    budget -= costs.back();
    range += costs.front() - costs.back();
    for (int64_t cost : costs) unit = std::gcd(unit, cost - costs.back());
  }
  if (budget < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("SPDY: ", target, " parameters cannot be reached, the last levels have ", target - budget));
  }
  unit = std::max<int64_t>(1, unit);
  if (range / unit > kMostUnits) unit = (range + kMostUnits - 1) / kMostUnits;
  const auto units_of = [&](size_t module, size_t level) {
    const std::vector<int64_t>& costs = ModuleOf(parameters.modules, module);
    return (costs[level] - costs.back() + unit - 1) / unit;
  };
  const auto width = static_cast<size_t>(std::min(budget, range) / unit) + 1;
  // least[b]: of the modules so far, at most b units.
  std::vector<double> least(width, 0.0);
  std::vector<std::vector<uint8_t>> chosen(modules, std::vector<uint8_t>(width));
  for (size_t module = 0; module < modules; ++module) {
    const std::vector<double>& error = ModuleOf(errors, module);
    std::vector<double> next(width, std::numeric_limits<double>::infinity());
    for (size_t level = 0; level < error.size(); ++level) {
      const auto cost = static_cast<size_t>(units_of(module, level));
      for (size_t b = cost; b < width; ++b) {
        const double sum = least[b - cost] + error[level];
        if (sum >= next[b]) continue;
        next[b] = sum;
        chosen[module][b] = static_cast<uint8_t>(level);
      }
    }
    least = std::move(next);
  }
  Genome genome = Uniform(parameters, 0);
  size_t left = width - 1;
  for (size_t module = modules; module-- > 0;) {
    const uint8_t level = chosen[module][left];
    ModuleOf(genome, module) = level;
    left -= static_cast<size_t>(units_of(module, level));
  }
  return genome;
}

Genome DepthGenome(const ParameterTable& parameters, const LevelTable<double>& errors, int64_t target,
                   double tolerance) {
  const auto wanted = static_cast<double>(target);
  const int32_t last = parameters.levels() - 1;
  Genome genome = Uniform(parameters, 0);
  std::vector<size_t> order(ModuleCount(parameters));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return ModuleOf(errors, a).back() < ModuleOf(errors, b).back(); });
  for (size_t module : order) {
    if (static_cast<double>(parameters.Count(genome)) <= (1 + tolerance) * wanted) return genome;
    Genome without = genome;
    ModuleOf(without, module) = last;
    if (static_cast<double>(parameters.Count(without)) >= (1 - tolerance) * wanted) genome = std::move(without);
  }
  if (static_cast<double>(parameters.Count(genome)) <= (1 + tolerance) * wanted) return genome;
  Genome best = genome;
  for (size_t module : order) {
    for (int32_t level = ModuleOf(genome, module) + 1; level <= last; ++level) {
      Genome moved = genome;
      ModuleOf(moved, module) = level;
      if (std::abs(parameters.Count(moved) - target) < std::abs(parameters.Count(best) - target)) {
        best = std::move(moved);
      }
    }
  }
  return best;
}

}  // namespace trainyard::prune
