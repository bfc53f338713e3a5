#include "scaling/report.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "scaling/budget.h"

namespace trainyard::scaling {
namespace {

using Json = nlohmann::ordered_json;

Json Number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}
double ToDouble(const Json& json) {
  return json.is_null() ? NAN : json.get<double>();
}

Json ValueJson(double value, const Interval& interval) {
  return {{"value", Number(value)},
          {"low68", Number(interval.low68)},
          {"high68", Number(interval.high68)},
          {"low95", Number(interval.low95)},
          {"high95", Number(interval.high95)}};
}
Interval ToInterval(const Json& json) {
  return {ToDouble(json.at("low68")), ToDouble(json.at("high68")), ToDouble(json.at("low95")),
          ToDouble(json.at("high95"))};
}

Json RunJson(const StudyRun& run) {
  return {{"recipe", run.recipe},
          {"size", run.name},
          {"parameters", run.parameters},
          {"tokens", run.tokens},
          {"seed", run.seed}};
}
StudyRun ToRun(const Json& json) {
  StudyRun run;
  run.recipe = json.at("recipe").get<std::string>();
  run.name = json.at("size").get<std::string>();
  run.parameters = json.at("parameters").get<double>();
  run.tokens = json.at("tokens").get<double>();
  run.seed = json.at("seed").get<uint64_t>();
  return run;
}

ActsOn ToActsOn(const std::string& name) {
  return name == "tokens" ? ActsOn::kTokens : name == "both" ? ActsOn::kBoth : ActsOn::kParameters;
}

Json RecipeJson(const RecipeFit& recipe, const StudyReport& report) {
  int excluded = 0;
  for (const ExcludedRun& run : report.excluded) excluded += run.run.recipe == recipe.name ? 1 : 0;
  const auto capacity = report.capacities.find(recipe.name);
  return {{"recipe", recipe.name},
          {"acts_on", ActsOnName(recipe.acts_on)},
          {"bits", recipe.bits > 0 ? Json(recipe.bits) : Json(nullptr)},
          {"runs", recipe.runs},
          {"excluded_runs", excluded},
          {"eff_parameters", ValueJson(recipe.eff.parameters, recipe.parameters_interval)},
          {"eff_tokens", ValueJson(recipe.eff.tokens, recipe.tokens_interval)},
          {"joint_eff_parameters", Number(recipe.joint.parameters)},
          {"joint_eff_tokens", Number(recipe.joint.tokens)},
          {"at_limit", recipe.is_at_limit},
          {"capacity", capacity == report.capacities.end() ? Json(nullptr) : Number(capacity->second)}};
}

void ReadRecipe(const Json& json, StudyReport* report) {
  RecipeFit recipe;
  recipe.name = json.at("recipe").get<std::string>();
  recipe.acts_on = ToActsOn(json.at("acts_on").get<std::string>());
  recipe.bits = json.at("bits").is_null() ? 0 : json.at("bits").get<double>();
  recipe.runs = json.at("runs").get<int>();
  recipe.eff = {ToDouble(json.at("eff_parameters").at("value")), ToDouble(json.at("eff_tokens").at("value"))};
  recipe.parameters_interval = ToInterval(json.at("eff_parameters"));
  recipe.tokens_interval = ToInterval(json.at("eff_tokens"));
  recipe.joint = {ToDouble(json.at("joint_eff_parameters")), ToDouble(json.at("joint_eff_tokens"))};
  recipe.is_at_limit = json.at("at_limit").get<bool>();
  if (!json.at("capacity").is_null()) report->capacities[recipe.name] = json.at("capacity").get<double>();
  report->fit.recipes.push_back(std::move(recipe));
}

void ReadLaw(const Json& json, StudyFit* fit) {
  std::array<double, kLawParameters> natural;
  for (size_t k = 0; k < natural.size(); ++k) {
    const Json& entry = json.at(LawParameterNames()[k]);
    natural[k] = ToDouble(entry.at("value"));
    fit->law_intervals[k] = ToInterval(entry);
  }
  fit->law = {std::log(natural[0]), natural[1], std::log(natural[2]), natural[3], std::log(natural[4]), natural[5]};
}

StudyReport ToReport(const Json& json) {
  StudyReport report;
  StudyFit& fit = report.fit;
  report.is_partial = json.at("partial").get<bool>();
  report.trainings = json.at("trainings").get<int>();
  fit.form =
      json.at("form").get<std::string>() == FormName(Form::kChinchilla) ? Form::kChinchilla : Form::kOuterExponent;
  fit.huber_delta = ToDouble(json.at("huber_delta"));
  fit.two_stage = json.at("two_stage").get<bool>();
  fit.bootstrap = json.at("bootstrap").get<int>();
  ReadLaw(json.at("law"), &fit);
  fit.cost = ToDouble(json.at("cost"));
  fit.worst_residual = ToDouble(json.at("worst_residual"));
  fit.starts = json.at("starts").get<int>();
  fit.agreeing_starts = json.at("agreeing_starts").get<int>();
  fit.baseline_runs = json.at("baseline_runs").get<int>();
  for (const Json& recipe : json.at("recipes")) ReadRecipe(recipe, &report);
  for (const Json& entry : json.at("runs")) {
    RunFit run;
    run.run = ToRun(entry);
    run.run.loss = ToDouble(entry.at("loss"));
    for (const RecipeFit& recipe : fit.recipes) {
      if (recipe.name != run.run.recipe) continue;
      run.run.acts_on = recipe.acts_on;
      run.run.bits = recipe.bits;
    }
    run.predicted = ToDouble(entry.at("predicted"));
    run.residual = ToDouble(entry.at("residual"));
    if (!entry.at("eff_parameters").is_null()) run.inverted = entry.at("eff_parameters").get<double>();
    fit.runs.push_back(std::move(run));
  }
  for (const Json& entry : json.at("excluded")) {
    const Json& least = entry.at("loss_at_least");
    report.excluded.push_back(
        {ToRun(entry), entry.at("reason").get<std::string>(), least.is_null() ? 0 : least.get<double>()});
  }
  if (const Json& entry = json.at("validation"); !entry.is_null()) {
    fit.validation = {ToDouble(entry.at("parameters")), entry.at("runs").get<int>(), ToDouble(entry.at("mean_error")),
                      ToDouble(entry.at("max_error"))};
  }
  for (const Json& entry : json.at("predictions")) {
    report.predictions.push_back({entry.at("recipe").get<std::string>(), ToDouble(entry.at("parameters")),
                                  ToDouble(entry.at("tokens")), ToDouble(entry.at("loss"))});
  }
  for (const Json& note : json.at("notes")) fit.notes.push_back(note.get<std::string>());
  return report;
}

}  // namespace

std::vector<Prediction> Predict(const StudyFit& fit, double parameters, double tokens) {
  std::vector<Prediction> predictions = {{kBaseline, parameters, tokens, Loss(fit.law, parameters, tokens)}};
  for (const RecipeFit& recipe : fit.recipes) {
    predictions.push_back({recipe.name, parameters, tokens, Loss(fit.law, parameters, tokens, recipe.eff)});
  }
  return predictions;
}

std::string FormatReport(const StudyReport& report) {
  const StudyFit& fit = report.fit;
  Json json = {{"partial", report.is_partial},           {"trainings", report.trainings}, {"form", FormName(fit.form)},
               {"huber_delta", Number(fit.huber_delta)}, {"two_stage", fit.two_stage},    {"bootstrap", fit.bootstrap}};
  const auto natural = NaturalParameters(fit.law);
  for (size_t k = 0; k < natural.size(); ++k) {
    json["law"][LawParameterNames()[k]] = ValueJson(natural[k], fit.law_intervals[k]);
  }
  json["cost"] = Number(fit.cost);
  json["worst_residual"] = Number(fit.worst_residual);
  json["starts"] = fit.starts;
  json["agreeing_starts"] = fit.agreeing_starts;
  json["baseline_runs"] = fit.baseline_runs;
  json["recipes"] = Json::array();
  for (const RecipeFit& recipe : fit.recipes) json["recipes"].push_back(RecipeJson(recipe, report));
  json["ranking"] = Json::array();
  for (const RankedRecipe& ranked : RankByBits(fit)) {
    json["ranking"].push_back(
        {{"recipe", ranked.name}, {"eff", ranked.eff}, {"bits", ranked.bits}, {"eff_per_bit", ranked.eff_per_bit}});
  }
  json["runs"] = Json::array();
  for (const RunFit& run : fit.runs) {
    Json entry = RunJson(run.run);
    entry["loss"] = run.run.loss;
    entry["predicted"] = Number(run.predicted);
    entry["residual"] = Number(run.residual);
    entry["eff_parameters"] = run.inverted ? Number(*run.inverted) : Json(nullptr);
    json["runs"].push_back(std::move(entry));
  }
  json["excluded"] = Json::array();
  for (const ExcludedRun& excluded : report.excluded) {
    Json entry = RunJson(excluded.run);
    entry["reason"] = excluded.reason;
    entry["loss_at_least"] = excluded.loss_at_least > 0 ? Json(excluded.loss_at_least) : Json(nullptr);
    json["excluded"].push_back(std::move(entry));
  }
  json["validation"] = nullptr;
  if (fit.validation) {
    json["validation"] = {{"parameters", fit.validation->parameters},
                          {"runs", fit.validation->runs},
                          {"mean_error", Number(fit.validation->mean_error)},
                          {"max_error", Number(fit.validation->max_error)}};
  }
  json["predictions"] = Json::array();
  for (const Prediction& prediction : report.predictions) {
    json["predictions"].push_back({{"recipe", prediction.recipe},
                                   {"parameters", prediction.parameters},
                                   {"tokens", prediction.tokens},
                                   {"loss", Number(prediction.loss)}});
  }
  json["notes"] = fit.notes;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<StudyReport> ParseReport(absl::string_view text) {
  try {
    return ToReport(Json::parse(text.begin(), text.end()));
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("not a report of a study: ", error.what()));
  }
}

std::string FormName(Form form) {
  return form == Form::kChinchilla ? "chinchilla" : "outer_exponent";
}

}  // namespace trainyard::scaling
