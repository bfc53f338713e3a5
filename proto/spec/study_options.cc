#include "proto/spec/study_options.h"

#include <algorithm>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "proto/spec/choice.h"
#include "proto/spec/field_errors.h"
#include "proto/spec/job_options.h"
#include "proto/v1/study.pb.h"

namespace trainyard::spec {
namespace {

constexpr int kMaxEntries = 64;

StudySize ParseSize(const v1::StudySize& spec, int number, const LlamaShape& base, FieldErrors errors) {
  StudySize size{spec.name().empty() ? absl::StrCat("s", number) : spec.name(), base};
  if (!IsLabel(size.name)) errors.Add("name", absl::StrCat("'", size.name, "' is not a label: a-z, 0-9 and '-'"));
  LlamaShape& shape = size.shape;
  const auto read = [&](bool given, const char* name, int32_t value, int32_t highest, int32_t& field) {
    if (given) field = errors.InRange(name, value, 1, highest);
  };
  read(spec.has_hidden_size(), "hidden_size", spec.hidden_size(), 1 << 20, shape.hidden_size);
  read(spec.has_intermediate_size(), "intermediate_size", spec.intermediate_size(), 1 << 22, shape.intermediate_size);
  read(spec.has_num_hidden_layers(), "num_hidden_layers", spec.num_hidden_layers(), 10'000, shape.num_hidden_layers);
  read(spec.has_num_attention_heads(), "num_attention_heads", spec.num_attention_heads(), 1 << 16,
       shape.num_attention_heads);
  if (spec.has_num_key_value_heads()) {
    read(true, "num_key_value_heads", spec.num_key_value_heads(), 1 << 16, shape.num_key_value_heads);
  } else if (spec.has_num_attention_heads()) {
    shape.num_key_value_heads = shape.num_attention_heads;
  }
  if (spec.has_hidden_size() || spec.has_num_attention_heads()) {
    shape.head_dim = shape.hidden_size / std::max(1, shape.num_attention_heads);
    if (shape.head_dim * shape.num_attention_heads != shape.hidden_size || shape.head_dim % 2 != 0) {
      errors.Add("hidden_size",
                 absl::StrCat(shape.hidden_size, " is not an even number times ", shape.num_attention_heads, " heads"));
    }
  }
  if (shape.num_key_value_heads > 0 && shape.num_attention_heads % shape.num_key_value_heads != 0) {
    errors.Add("num_key_value_heads",
               absl::StrCat(shape.num_key_value_heads, " does not divide ", shape.num_attention_heads, " heads"));
  }
  return size;
}

void ParseSizes(const v1::StudySpec& spec, const LlamaShape* base, StudyOptions& options, FieldErrors& errors) {
  if (spec.sizes_size() < 3 || spec.sizes_size() > kMaxEntries) {
    errors.Add("sizes", absl::StrCat(spec.sizes_size(), " sizes not in [3, ", kMaxEntries, "]"));
    return;
  }
  if (base == nullptr) {
    errors.Add("sizes", "need the job's model.shape, which they change");
    return;
  }
  std::set<std::string> names;
  int64_t smallest = std::numeric_limits<int64_t>::max(), largest = 0;
  for (int i = 0; i < spec.sizes_size(); ++i) {
    const std::string name = absl::StrCat("sizes[", i, "]");
    options.sizes.push_back(ParseSize(spec.sizes(i), i + 1, *base, errors.In(name)));
    if (!names.insert(options.sizes.back().name).second) {
      errors.Add(name, absl::StrCat("'", options.sizes.back().name, "' is there twice"));
    }
    const int64_t parameters = NonEmbeddingParameters(options.sizes.back().shape);
    smallest = std::min(smallest, parameters);
    largest = std::max(largest, parameters);
  }
  if (largest < 3 * smallest) {
    errors.Add("sizes", absl::StrCat("span ", smallest, " to ", largest,
                                     " parameters without embeddings; a fit needs a factor of at least 3"));
  }
}

void ParseRatios(const v1::StudySpec& spec, StudyOptions& options, FieldErrors& errors) {
  const bool is_outer = options.fit.form == StudyForm::kOuterExponent;
  const int least = is_outer ? 3 : 2;
  const int count = spec.tokens_per_parameter_size();
  if (count < least || count > kMaxEntries) {
    errors.Add("tokens_per_parameter",
               absl::StrCat(count, " ratios not in [", least, ", ", kMaxEntries, "], for this form of the law"));
  }
  for (int i = 0; i < count; ++i) {
    const std::string name = absl::StrCat("tokens_per_parameter[", i, "]");
    const double ratio = errors.InRangeAbove(name, spec.tokens_per_parameter(i), 0, 1e6);
    if (!options.tokens_per_parameter.empty() && ratio <= options.tokens_per_parameter.back()) {
      errors.Add(name, absl::StrCat(ratio, " is not more than ", options.tokens_per_parameter.back()));
    }
    options.tokens_per_parameter.push_back(ratio);
  }
  if (is_outer && count >= least && options.tokens_per_parameter.back() < 8 * options.tokens_per_parameter.front()) {
    errors.Add("tokens_per_parameter", "span less than the factor of 8 that form outer_exponent needs");
  }
}

void ParseRecipes(const v1::StudySpec& spec, StudyOptions& options, FieldErrors& errors) {
  if (spec.recipes_size() < 1 || spec.recipes_size() > kMaxEntries) {
    errors.Add("recipes", absl::StrCat(spec.recipes_size(), " recipes not in [1, ", kMaxEntries, "]"));
  }
  std::set<std::string> names;
  for (int i = 0; i < spec.recipes_size(); ++i) {
    const v1::StudyRecipe& recipe = spec.recipes(i);
    FieldErrors inner = errors.In(absl::StrCat("recipes[", i, "]"));
    if (!IsLabel(recipe.name())) inner.Add("name", absl::StrCat("'", recipe.name(), "' is not a label"));
    if (!names.insert(recipe.name()).second) inner.Add("name", absl::StrCat("'", recipe.name(), "' is there twice"));
    options.recipes.push_back({recipe.name()});
    if (recipe.has_linear()) {
      FieldErrors linear = inner.In("linear");
      ParseLinear(recipe.linear(), linear);
    }
    if (recipe.has_optimizer()) {
      FieldErrors optimizer = inner.In("optimizer");
      ParseOptimizer(recipe.optimizer(), optimizer);
    }
  }
  if (spec.recipes_size() > 0 && names.count(kBaselineRecipe) == 0) {
    errors.Add("recipes", "have no 'baseline', which the others are compared with");
  }
}

StudyFitOptions ParseFit(const v1::StudyFit& spec, FieldErrors errors) {
  StudyFitOptions options;
  options.form = Choose<v1::StudyFit::Form, StudyForm>(errors, "form", spec.form(),
                                                       {{v1::StudyFit::FORM_OUTER_EXPONENT, StudyForm::kOuterExponent},
                                                        {v1::StudyFit::FORM_CHINCHILLA, StudyForm::kChinchilla}});
  if (options.form == StudyForm::kChinchilla) options.huber_delta = 1e-3;
  if (spec.has_huber_delta()) options.huber_delta = errors.InRange("huber_delta", spec.huber_delta(), 1e-6, 0.1);
  if (spec.has_two_stage()) options.two_stage = spec.two_stage();
  if (spec.has_bootstrap()) options.bootstrap = errors.InRange("bootstrap", spec.bootstrap(), 0, 10'000);
  return options;
}

void CheckFlops(const v1::StudySpec& spec, StudyOptions& options, FieldErrors& errors) {
  if (!spec.has_max_total_flops()) return;
  options.max_total_flops = errors.InRangeAbove("max_total_flops", spec.max_total_flops(), 0, 1e30);
  double total = 0;
  for (const StudySize& size : options.sizes) {
    for (const double ratio : options.tokens_per_parameter) {
      total += 6.0 * static_cast<double>(NonEmbeddingParameters(size.shape)) * StudyTokens(size, ratio);
    }
  }
  total *= static_cast<double>(options.recipes.size() * options.seeds.size());
  if (total > *options.max_total_flops) {
    errors.Add("max_total_flops",
               absl::StrCat(*options.max_total_flops, " is less than the ", total, " FLOPs (6 N D) of all trainings"));
  }
}

}  // namespace

int64_t NonEmbeddingParameters(const LlamaShape& shape) {
  const int64_t tables = shape.tie_word_embeddings ? 1 : 2;
  return ParameterCount(shape) - tables * int64_t{shape.vocab_size} * shape.hidden_size;
}

double StudyTokens(const StudySize& size, double tokens_per_parameter) {
  return tokens_per_parameter * static_cast<double>(NonEmbeddingParameters(size.shape));
}

StudyOptions ParseStudy(const v1::StudySpec& spec, const LlamaShape* base, FieldErrors& errors) {
  StudyOptions options;
  options.fit = ParseFit(spec.fit(), errors.In("fit"));
  ParseSizes(spec, base, options, errors);
  ParseRatios(spec, options, errors);
  ParseRecipes(spec, options, errors);
  if (spec.seeds_size() > kMaxEntries) {
    errors.Add("seeds", absl::StrCat(spec.seeds_size(), " seeds not in [1, ", kMaxEntries, "]"));
  } else if (spec.seeds_size() > 0) {
    options.seeds.assign(spec.seeds().begin(), spec.seeds().end());
    if (std::set<uint64_t>(options.seeds.begin(), options.seeds.end()).size() != options.seeds.size()) {
      errors.Add("seeds", "has a seed twice");
    }
  }
  FieldErrors rate = errors.In("learning_rate");
  options.rate_rule = Choose<v1::StudyLearningRate::Rule, StudyRateRule>(
      rate, "rule", spec.learning_rate().rule(),
      {{v1::StudyLearningRate::RULE_INVERSE_PARAMETERS, StudyRateRule::kInverseParameters},
       {v1::StudyLearningRate::RULE_INVERSE_WIDTH, StudyRateRule::kInverseWidth},
       {v1::StudyLearningRate::RULE_SAME, StudyRateRule::kSame}});
  if (spec.has_max_parallel()) options.max_parallel = errors.InRange("max_parallel", spec.max_parallel(), 1, 100'000);
  CheckFlops(spec, options, errors);
  if (spec.predict_size() > kMaxEntries) {
    errors.Add("predict", absl::StrCat(spec.predict_size(), " points, at most ", kMaxEntries, " allowed"));
  }
  for (int i = 0; i < std::min(spec.predict_size(), kMaxEntries); ++i) {
    FieldErrors inner = errors.In(absl::StrCat("predict[", i, "]"));
    options.predict.push_back({inner.InRange("parameters", spec.predict(i).parameters(), 1.0, 1e15),
                               inner.InRange("tokens", spec.predict(i).tokens(), 1.0, 1e18)});
  }
  return options;
}

}  // namespace trainyard::spec
