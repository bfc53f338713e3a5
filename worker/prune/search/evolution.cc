#include "worker/prune/search/evolution.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "nlohmann/json.hpp"

namespace trainyard::prune {
namespace {

using Json = nlohmann::json;

Json NumberOrNull(const std::optional<double>& number) {
  return number ? Json(*number) : Json(nullptr);
}
std::optional<double> OptionalNumber(const Json& json) {
  if (json.is_null()) return std::nullopt;
  return json.get<double>();
}

Json GenomeJson(const Genome& genome) {
  return {{"attention", genome.attention}, {"mlp", genome.mlp}};
}

}  // namespace

std::string ToJson(const Genome& genome) {
  return GenomeJson(genome).dump();
}

Evolution::Evolution(EvolutionRules rules, Genome start) : rules_(std::move(rules)), parent_(std::move(start)) {
  TY_CHECK(!rules_.survivors.empty());
  TY_CHECK_EQ(rules_.survivors.back(), 1);
}

void Evolution::Begin() {
  TY_CHECK_EQ(stage_, 0);
  stage_ = 1;
  current_ = {};
  current_.generation = generation() + 1;
  candidates_ = Offspring(parent_, rules_.offspring, rules_.mutation, rules_.seed, current_.generation);
  if (rules_.survivors.size() == 1 && !candidates_.empty()) candidates_.push_back(parent_);
}

absl::Status Evolution::Report(const std::vector<std::optional<double>>& fitness) {
  TY_CHECK_GE(stage_, 1);
  TY_CHECK_EQ(fitness.size(), candidates_.size());
  std::vector<double> ranks;
  int32_t failed = 0;
  for (const std::optional<double>& value : fitness) {
    const bool is_good = value && std::isfinite(*value);
    ranks.push_back(is_good ? *value : std::numeric_limits<double>::infinity());
    failed += is_good ? 0 : 1;
  }
  if (failed == static_cast<int32_t>(candidates_.size())) {
    return absl::FailedPreconditionError(absl::StrCat("generation ", current_.generation, " stage ", stage_, ": all ",
                                                      candidates_.size(), " candidates failed"));
  }
  current_.trials += static_cast<int32_t>(candidates_.size());
  current_.failed_trials += failed;
  std::vector<size_t> order(candidates_.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return ranks[a] < ranks[b] || (ranks[a] == ranks[b] && candidates_[a] < candidates_[b]);
  });

  if (static_cast<size_t>(stage_) < rules_.survivors.size()) {
    const auto most = static_cast<size_t>(rules_.survivors[static_cast<size_t>(stage_) - 1]);
    std::vector<Genome> survivors;
    for (size_t i : order) {
      if (survivors.size() < most && std::isfinite(ranks[i])) survivors.push_back(candidates_[i]);
    }
    candidates_ = std::move(survivors);
    ++stage_;
    if (static_cast<size_t>(stage_) == rules_.survivors.size()) candidates_.push_back(parent_);
    return absl::OkStatus();
  }

  // The parent is last: Begin or the step to this stage put it there.
  const double parent_rank = ranks.back();
  if (std::isfinite(parent_rank)) current_.parent_fitness = parent_rank;
  current_.best_fitness = ranks[order.front()];
  if (current_.parent_fitness) {
    current_.is_improved = !(candidates_[order.front()] == parent_);
    parent_fitness_ = current_.best_fitness;
    parent_ = candidates_[order.front()];
  }
  End(current_);
  return absl::OkStatus();
}

void Evolution::Skip() {
  TY_CHECK_GE(stage_, 1);
  End(current_);
}

void Evolution::End(GenerationRecord record) {
  if (rules_.mutation.parameters != nullptr) record.parameters = rules_.mutation.parameters->Count(parent_);
  history_.push_back(record);
  stage_ = 0;
  candidates_.clear();
}

std::string Evolution::ToJson() const {
  TY_CHECK_EQ(stage_, 0);
  Json history = Json::array();
  for (const GenerationRecord& record : history_) {
    history.push_back({{"generation", record.generation},
                       {"best_fitness", NumberOrNull(record.best_fitness)},
                       {"parent_fitness", NumberOrNull(record.parent_fitness)},
                       {"improved", record.is_improved},
                       {"trials", record.trials},
                       {"failed_trials", record.failed_trials},
                       {"parameters", record.parameters}});
  }
  return Json{{"parent", GenomeJson(parent_)}, {"fitness", NumberOrNull(parent_fitness_)}, {"history", history}}.dump();
}

absl::Status Evolution::Restore(const std::string& json) {
  try {
    const Json root = Json::parse(json);
    Genome parent{root.at("parent").at("attention").get<std::vector<int32_t>>(),
                  root.at("parent").at("mlp").get<std::vector<int32_t>>()};
    if (parent.attention.size() != parent_.attention.size() || parent.mlp.size() != parent_.mlp.size()) {
      return absl::DataLossError(absl::StrCat("search state: a genome of ", parent.attention.size(), " + ",
                                              parent.mlp.size(), " levels, the model has ", parent_.attention.size(),
                                              " blocks"));
    }
    std::vector<GenerationRecord> history;
    for (const Json& entry : root.at("history")) {
      history.push_back({.generation = entry.at("generation").get<int64_t>(),
                         .parent_fitness = OptionalNumber(entry.at("parent_fitness")),
                         .best_fitness = OptionalNumber(entry.at("best_fitness")),
                         .is_improved = entry.at("improved").get<bool>(),
                         .trials = entry.at("trials").get<int32_t>(),
                         .failed_trials = entry.at("failed_trials").get<int32_t>(),
                         .parameters = entry.at("parameters").get<int64_t>()});
    }
    parent_fitness_ = OptionalNumber(root.at("fitness"));
    parent_ = std::move(parent);
    history_ = std::move(history);
    stage_ = 0;
    candidates_.clear();
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat("search state: ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace trainyard::prune
