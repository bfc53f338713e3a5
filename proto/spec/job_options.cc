#include "proto/spec/job_options.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/digest.h"
#include "base/overloaded.h"
#include "base/pattern.h"
#include "base/status_macros.h"
#include "proto/spec/durations.h"
#include "proto/spec/field_errors.h"
#include "proto/spec/references.h"
#include "proto/spec/study_expand.h"
#include "proto/v1/job.pb.h"

namespace trainyard::spec {
namespace {

constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelLength = 63;
constexpr size_t kMaxAnnotationLength = 4096;
constexpr int kMaxCounter = 1'000'000;
const absl::Duration kTenYears = absl::Hours(10 * 365 * 24);

void CheckLabel(FieldErrors& errors, absl::string_view name, absl::string_view value) {
  if (IsLabel(value)) return;
  errors.Add(name, absl::StrCat("'", value.substr(0, 80),
                                "' is not a name: 1 to 63 of a-z, 0-9 and '-', a letter first, no '-' last"));
}

WorldOptions ParseWorld(const v1::World& spec, FieldErrors errors) {
  constexpr int kMaxWorld = 100'000;
  WorldOptions options;
  if (spec.has_min()) options.min = errors.InRange("min", spec.min(), 1, kMaxWorld);
  if (spec.has_max()) options.max = errors.InRange("max", spec.max(), 1, kMaxWorld);
  if (!spec.has_min()) options.min = options.max;
  if (!spec.has_max()) options.max = options.min;
  if (options.min > options.max) {
    errors.Add("max", absl::StrCat(options.max, " is smaller than world.min ", options.min));
  } else if (options.min < options.max) {
    errors.Add("max", absl::StrCat(options.max, " differs from world.min ", options.min,
                                   ": jobs that change their size are not supported yet"));
  }
  if (spec.has_slots_per_worker()) {
    options.slots_per_worker = errors.InRange("slots_per_worker", spec.slots_per_worker(), 1, 64);
  }
  switch (spec.slot_type()) {
    case v1::SLOT_TYPE_UNSPECIFIED:
    case v1::SLOT_TYPE_CPU:
      break;
    case v1::SLOT_TYPE_GPU:
      options.slot_type = SlotType::kGpu;
      break;
    case v1::SLOT_TYPE_DRIVER:
      errors.Add("slot_type", "driver is for the jobs that ask for trials, which take it by themselves");
      break;
    default:
      errors.Add("slot_type", absl::StrCat(static_cast<int>(spec.slot_type()), " is not a known type"));
  }
  if (spec.has_threads_per_rank()) {
    options.threads_per_rank = errors.InRange("threads_per_rank", spec.threads_per_rank(), 1, 1024);
  }
  return options;
}

RetryOptions ParseRetry(const v1::Retry& spec, FieldErrors errors) {
  RetryOptions options;
  if (spec.has_max_user_failures()) {
    options.max_user_failures = errors.InRange("max_user_failures", spec.max_user_failures(), 0, kMaxCounter);
  }
  if (spec.has_max_infra_failures()) {
    options.max_infra_failures = errors.InRange("max_infra_failures", spec.max_infra_failures(), 0, kMaxCounter);
  }
  if (spec.has_no_progress_limit()) {
    options.no_progress_limit = errors.InRange("no_progress_limit", spec.no_progress_limit(), 0, kMaxCounter);
  }
  const size_t before = errors.violations().size();
  if (spec.has_backoff_initial()) {
    options.backoff_initial =
        DurationInRange(errors, "backoff_initial", spec.backoff_initial(), absl::Seconds(1), absl::Hours(1));
  }
  if (spec.has_backoff_maximum()) {
    options.backoff_maximum =
        DurationInRange(errors, "backoff_maximum", spec.backoff_maximum(), absl::Seconds(1), absl::Hours(1));
  }
  if (errors.violations().size() == before && options.backoff_initial > options.backoff_maximum) {
    errors.Add(spec.has_backoff_initial() ? "backoff_initial" : "backoff_maximum",
               absl::StrCat("backoff_initial ", absl::FormatDuration(options.backoff_initial),
                            " is longer than backoff_maximum ", absl::FormatDuration(options.backoff_maximum)));
  }
  return options;
}

template <typename Codes>
std::vector<int32_t> ParseCodes(FieldErrors& errors, absl::string_view name, const Codes& codes) {
  std::set<int32_t> seen;
  for (int i = 0; i < codes.size(); ++i) {
    const std::string item = absl::StrCat(name, "[", i, "]");
    errors.InRange(item, codes[i], 1, 125);
    if (!seen.insert(codes[i]).second) errors.Add(item, absl::StrCat(codes[i], " is in the list twice"));
  }
  return {codes.begin(), codes.end()};
}

// Drops from `defaults` what the user put into the other list.
void DropListed(std::vector<int32_t>& defaults, const std::vector<int32_t>& listed) {
  const auto is_listed = [&](int32_t code) { return std::find(listed.begin(), listed.end(), code) != listed.end(); };
  defaults.erase(std::remove_if(defaults.begin(), defaults.end(), is_listed), defaults.end());
}

ExitPolicyOptions ParseExitPolicy(const v1::ExitPolicy& spec, FieldErrors errors) {
  ExitPolicyOptions options;
  if (spec.always_retry_size() > 0) options.always_retry = ParseCodes(errors, "always_retry", spec.always_retry());
  if (spec.never_retry_size() > 0) options.never_retry = ParseCodes(errors, "never_retry", spec.never_retry());
  if (spec.never_retry_size() == 0) DropListed(options.never_retry, options.always_retry);
  if (spec.always_retry_size() == 0) DropListed(options.always_retry, options.never_retry);
  for (size_t i = 0; i < options.never_retry.size(); ++i) {
    const int32_t code = options.never_retry[i];
    if (std::find(options.always_retry.begin(), options.always_retry.end(), code) != options.always_retry.end()) {
      errors.Add(absl::StrCat("never_retry[", i, "]"), absl::StrCat(code, " is also in exit_policy.always_retry"));
    }
  }
  return options;
}

CheckpointOptions ParseCheckpoint(const v1::CheckpointPolicy& spec, FieldErrors errors) {
  CheckpointOptions options;
  switch (spec.interval_case()) {
    case v1::CheckpointPolicy::kIntervalSeconds:
      options.interval = absl::Seconds(errors.InRange("interval_seconds", spec.interval_seconds(), 1, 7 * 24 * 3600));
      break;
    case v1::CheckpointPolicy::kIntervalSteps:
      options.interval.reset();
      options.interval_steps = errors.InRange("interval_steps", spec.interval_steps(), 1, 1'000'000'000);
      break;
    case v1::CheckpointPolicy::INTERVAL_NOT_SET:
      break;
  }
  if (spec.has_keep_last()) options.keep_last = errors.InRange("keep_last", spec.keep_last(), 1, 1000);
  if (spec.has_on_stop()) options.on_stop = spec.on_stop();
  return options;
}

HangOptions ParseHang(const v1::Hang& spec, FieldErrors errors) {
  HangOptions options;
  if (spec.has_factor()) options.factor = errors.InRange("factor", spec.factor(), 2, 1000);
  if (spec.has_floor()) {
    options.floor = DurationInRange(errors, "floor", spec.floor(), absl::Seconds(1), absl::Hours(24));
  }
  if (spec.has_warmup_steps()) {
    options.warmup_steps = errors.InRange("warmup_steps", spec.warmup_steps(), 0, kMaxCounter);
  }
  return options;
}

bool IsLabelKey(absl::string_view key) {
  const auto inner = [](char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.' || c == '/'; };
  return !key.empty() && key.size() <= kMaxLabelLength && absl::ascii_isalnum(key.front()) &&
         absl::ascii_isalnum(key.back()) && std::all_of(key.begin(), key.end(), inner);
}

template <typename Map>
std::map<std::string, std::string> ParseLabels(FieldErrors& errors, absl::string_view name, const Map& labels,
                                               size_t max_value) {
  // In key order, so that messages do not depend on protobuf's hash.
  const std::map<std::string, std::string> sorted(labels.begin(), labels.end());
  if (sorted.size() > kMaxLabels) {
    errors.Add(name, absl::StrCat(sorted.size(), " entries, at most ", kMaxLabels, " allowed"));
  }
  for (const auto& [key, value] : sorted) {
    if (!IsLabelKey(key)) {
      errors.Add(name, absl::StrCat("key '", absl::string_view(key).substr(0, 80),
                                    "' is not 1 to 63 of letters, digits and '-_./', alphanumeric at both ends"));
    } else if (value.size() > max_value) {
      errors.Add(absl::StrCat(name, ".", key),
                 absl::StrCat("value has ", value.size(), " characters, at most ", max_value, " allowed"));
    }
  }
  return sorted;
}

// Of a kind whose message has sample_prompts and sample_tokens.
template <typename Spec>
TextSamples ParseSamples(const Spec& spec, FieldErrors errors) {
  constexpr int kMaxPrompts = 16;
  constexpr size_t kMaxPromptBytes = 4096;
  TextSamples samples;
  samples.prompts.assign(spec.sample_prompts().begin(), spec.sample_prompts().end());
  if (spec.sample_prompts_size() > kMaxPrompts) {
    errors.Add("sample_prompts",
               absl::StrCat(spec.sample_prompts_size(), " prompts, at most ", kMaxPrompts, " allowed"));
  }
  for (int i = 0; i < spec.sample_prompts_size(); ++i) {
    const size_t bytes = spec.sample_prompts(i).size();
    if (bytes == 0 || bytes > kMaxPromptBytes) {
      errors.Add(absl::StrCat("sample_prompts[", i, "]"),
                 absl::StrCat(bytes, " bytes not in [1, ", kMaxPromptBytes, "]"));
    }
  }
  if (spec.has_sample_tokens()) samples.tokens = errors.InRange("sample_tokens", spec.sample_tokens(), 1, 4096);
  return samples;
}

void CheckDeadlines(const v1::JobSpec& spec, FieldErrors& errors, JobOptions& options) {
  const auto read = [&](bool given, absl::string_view name, const google::protobuf::Duration& value,
                        absl::Duration lowest, absl::Duration highest, absl::Duration& out) {
    if (given) out = DurationInRange(errors, name, value, lowest, highest);
  };
  const absl::Duration second = absl::Seconds(1);
  const absl::Duration zero = absl::ZeroDuration();
  const absl::Duration hour = absl::Hours(1);
  read(spec.has_active_deadline(), "active_deadline", spec.active_deadline(), second, kTenYears,
       options.active_deadline);
  read(spec.has_queue_deadline(), "queue_deadline", spec.queue_deadline(), second, kTenYears, options.queue_deadline);
  read(spec.has_ttl_after_finish(), "ttl_after_finish", spec.ttl_after_finish(), second, kTenYears,
       options.ttl_after_finish);
  read(spec.has_stop_grace(), "stop_grace", spec.stop_grace(), zero, hour, options.stop_grace);
  read(spec.has_lost_after(), "lost_after", spec.lost_after(), zero, hour, options.lost_after);
}

// Sizes that the linear scheme does not define. Of a model in a folder, the worker looks.
void CheckLinear(const JobOptions& options, const LlamaShape* shape, FieldErrors& errors) {
  const LinearOptions& linear = options.training.linear;
  if (std::holds_alternative<LinearFp32>(linear.scheme) && options.model.dtype == FloatType::kBf16) {
    errors.Add("training.linear", "fp32 needs model.dtype fp32, which is bf16");
  }
  const LinearMultiples multiples = MultiplesOf(linear);
  const std::string scheme = absl::StrCat("training.linear.", SchemeName(linear));
  const int64_t rows = int64_t{options.training.micro_batch} * options.data.sequence_length;
  if (rows % multiples.rows != 0) {
    errors.Add(scheme, absl::StrCat("needs micro_batch * sequence_length = ", options.training.micro_batch, " * ",
                                    options.data.sequence_length, " to be a multiple of ", multiples.rows));
  }
  if (shape == nullptr || shape->vocab_size == 0) return;
  for (const LinearLayerShape& layer : LinearLayersOf(*shape)) {
    bool is_used = false;
    for (int32_t i = 0; i < shape->num_hidden_layers; ++i) {
      is_used |= !MatchesAny(linear.exclude, absl::StrCat("layers.", i, ".", layer.name));
    }
    if (!is_used) continue;
    if (layer.in % multiples.in != 0) {
      errors.Add(scheme, absl::StrCat("needs the inputs of ", layer.name, " to be a multiple of ", multiples.in,
                                      ", which ", layer.in, " is not"));
    }
    if (layer.out % multiples.out != 0) {
      errors.Add(scheme, absl::StrCat("needs the outputs of ", layer.name, " to be a multiple of ", multiples.out,
                                      ", which ", layer.out, " is not"));
    }
  }
}

// Codes in groups, and pairs of codes in a byte, must end with a row.
void CheckEco(const EcoOptions& eco, const LlamaShape* shape, FieldErrors& errors) {
  if (shape == nullptr || shape->vocab_size == 0) return;
  using Granularity = EcoOptions::Granularity;
  const bool has_groups =
      eco.scale_granularity == Granularity::kGroup32 || eco.scale_granularity == Granularity::kGroup128;
  const int64_t group = eco.scale_granularity == Granularity::kGroup32 ? 32 : 128;
  bool has_any = false;
  for (const LinearLayerShape& layer : LinearLayersOf(*shape)) {
    bool is_used = eco.quantize.empty();
    for (int32_t i = 0; i < shape->num_hidden_layers; ++i) {
      is_used |= MatchesAny(eco.quantize, absl::StrCat("layers.", i, ".", layer.name, ".weight"));
    }
    if (!is_used) continue;
    has_any = true;
    if (has_groups && layer.in % group != 0) {
      errors.Add("training.optimizer.eco.scale_granularity",
                 absl::StrCat("groups of ", group, " do not divide the inputs of ", layer.name, ", ", layer.in));
    }
    if (eco.weight_format == EcoOptions::WeightFormat::kInt4 && layer.in % 2 != 0) {
      errors.Add("training.optimizer.eco.weight_format",
                 absl::StrCat("int4 needs the inputs of ", layer.name, " to be even, which ", layer.in, " is not"));
    }
  }
  if (!has_any) errors.Add("training.optimizer.eco.quantize", "no pattern matches a matrix of a block");
}

// Which optimizers and exchanges can share state out among the ranks.
void CheckShard(const v1::JobSpec& spec, const JobOptions& options, FieldErrors& errors) {
  if (options.training.shard == Shard::kNone) return;
  const char* const name = options.training.shard == Shard::kZero1 ? "zero1" : "grads";
  const OptimizerOptions& optimizer = options.training.optimizer;
  if (!std::holds_alternative<AdamWOptions>(optimizer) && !std::holds_alternative<SgdOptions>(optimizer)) {
    errors.Add("training.shard",
               absl::StrCat(name,
                            " is for adamw and sgd, which update each element on its own; the optimizer of this "
                            "job looks at whole matrices or keeps weights as codes: take none"));
  }
  if (options.training.shard == Shard::kGrads && options.communication.HasCodecs()) {
    errors.Add("training.shard",
               "grads needs communication.codec identity for all layer types: coded sums go to all ranks, which have "
               "no memory for them; take zero1");
  }
  if (spec.kind_case() == v1::JobSpec::kPruneTask || spec.kind_case() == v1::JobSpec::kSelectData) {
    errors.Add("training.shard", absl::StrCat(name, " has no effect: every rank of this kind works on its own"));
  }
}

// What can live on the host, and of which jobs.
void CheckOffload(const v1::JobSpec& spec, const JobOptions& options, FieldErrors& errors) {
  const OffloadOptions& offload = options.training.offload;
  if (!offload.any()) return;
  constexpr char kField[] = "training.offload";
  const v1::JobSpec::KindCase kind = spec.kind_case();
  if (kind != v1::JobSpec::kPretrain && kind != v1::JobSpec::kQat && kind != v1::JobSpec::kStudy &&
      kind != v1::JobSpec::KIND_NOT_SET) {
    errors.Add(kField, "is for pretrain, qat and study; leave it empty");
    return;
  }
  if (options.world.slot_type != SlotType::kGpu) {
    errors.Add(kField, "needs world.slot_type gpu: on a cpu slot all memory is the host's; leave it empty");
  }
  const OptimizerOptions& optimizer = options.training.optimizer;
  const auto* const sgd = std::get_if<SgdOptions>(&optimizer);
  const bool is_elementwise = sgd != nullptr || std::holds_alternative<AdamWOptions>(optimizer);
  for (const auto& [is_chosen, name] : {std::pair{offload.moments, "moments"}, {offload.master, "master"}}) {
    if (!is_chosen || is_elementwise) continue;
    errors.Add(kField, absl::StrCat(name,
                                    " is for adamw and sgd, which update each element on its own; the optimizer "
                                    "of this job looks at whole matrices or keeps weights as codes: residuals "
                                    "is all it can take"));
  }
  if (offload.moments && sgd != nullptr && sgd->momentum == 0) {
    errors.Add(kField, "moments has no effect: training.optimizer.sgd.momentum is 0, so there are none");
  }
  if (offload.master && is_elementwise && options.model.dtype != FloatType::kBf16) {
    errors.Add(kField, "master needs model.dtype bf16: fp32 weights are their own master");
  }
  if (offload.residuals && options.training.recompute != Recompute::kBlock) {
    errors.Add(kField, "residuals needs training.recompute block, which keeps the inputs of blocks and nothing else");
  }
}

// What depends on more than one section.
void CheckRelations(const v1::JobSpec& spec, const JobOptions& options, FieldErrors& errors) {
  const LlamaShape* shape = ShapeOf(options.model);
  if (shape != nullptr && shape->vocab_size > 0 && options.data.sequence_length > shape->max_position_embeddings) {
    errors.Add("data.sequence_length",
               absl::StrCat(options.data.sequence_length, spec.data().has_sequence_length() ? "" : " (the default)",
                            " is longer than the model's max_position_embeddings ", shape->max_position_embeddings));
  }
  const int64_t rows = int64_t{options.training.micro_batch} * options.data.sequence_length;
  if (rows % options.training.lm_head_chunks != 0) {
    errors.Add("training.lm_head_chunks",
               absl::StrCat(options.training.lm_head_chunks, " does not divide micro_batch * sequence_length = ",
                            options.training.micro_batch, " * ", options.data.sequence_length));
  }
  CheckLinear(options, shape, errors);
  if (const auto* const eco = std::get_if<EcoOptions>(&options.training.optimizer)) CheckEco(*eco, shape, errors);
  if (const auto* const elsa = std::get_if<ElsaOptions>(&options.training.optimizer)) {
    if (options.training.steps > 0 && elsa->interval > options.training.steps) {
      errors.Add("training.optimizer.elsa.interval",
                 absl::StrCat(elsa->interval, " is more than training.steps ", options.training.steps));
    }
  }
}

void ParseLanguageModelSections(const v1::JobSpec& spec, JobOptions& options, FieldErrors& errors) {
  FieldErrors model = errors.In("model");
  options.model = ParseModel(spec.model(), model);
  if (spec.kind_case() != v1::JobSpec::kSelectData) {
    FieldErrors data = errors.In("data");
    options.data = ParseData(spec.data(), data);
  } else if (spec.has_data()) {
    errors.Add("data", "has no effect: give select_data.pool and select_data.target");
  }
  // A search need not train on, and the others have their own way to train.
  const bool wants_training = spec.kind_case() != v1::JobSpec::kPruneSearch &&
                              spec.kind_case() != v1::JobSpec::kPruneTask &&
                              spec.kind_case() != v1::JobSpec::kSelectData;
  if (wants_training || spec.has_training()) {
    FieldErrors training = errors.In("training");
    v1::TrainingSpec given = spec.training();
    if (spec.kind_case() == v1::JobSpec::kStudy) {
      if (given.has_steps()) training.Add("steps", "has no effect: a study's steps follow from tokens_per_parameter");
      given.set_steps(1'000'000'000);  // each trial sets its own
    }
    options.training = ParseTraining(given, training);
  }
  if (spec.training().linear().scheme_case() != v1::LinearScheme::SCHEME_NOT_SET) return;
  if (spec.kind_case() == v1::JobSpec::kQat) {
    options.training.linear.scheme = LinearQuest{};
  } else if (options.model.dtype == FloatType::kBf16) {
    options.training.linear.scheme = LinearBf16{};
  }
}

// A section that has no effect is a misunderstanding.
void RefuseLanguageModelSections(const v1::JobSpec& spec, FieldErrors& errors) {
  constexpr char kText[] = "a section of the kinds that have a language model; a qoda_gan job has qoda_gan.";
  if (spec.has_model()) errors.Add("model", absl::StrCat(kText, "networks"));
  if (spec.has_data()) errors.Add("data", absl::StrCat(kText, "data"));
  if (spec.has_training()) errors.Add("training", absl::StrCat(kText, "optimizer, updates and the like"));
}

std::string DigestOfMessage(const v1::JobSpec& spec) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream sink(&bytes);
    google::protobuf::io::CodedOutputStream coded(&sink);
    coded.SetSerializationDeterministic(true);  // maps in key order
    spec.SerializeToCodedStream(&coded);
  }
  return DigestOf(bytes);
}

}  // namespace

bool IsLabel(absl::string_view name) {
  const auto inner = [](char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-'; };
  return !name.empty() && name.size() <= kMaxLabelLength && absl::ascii_islower(name.front()) && name.back() != '-' &&
         std::all_of(name.begin(), name.end(), inner);
}

absl::StatusOr<JobOptions> ParseJob(const v1::JobSpec& spec) {
  FieldErrors errors;
  JobOptions options;

  options.name = spec.name();
  if (!spec.name().empty()) CheckLabel(errors, "name", spec.name());
  if (!spec.namespace_().empty()) {
    options.name_space = spec.namespace_();
    CheckLabel(errors, "namespace", options.name_space);
  }
  if (!spec.queue().empty()) {
    options.queue = spec.queue();
    CheckLabel(errors, "queue", options.queue);
  }
  if (spec.has_priority()) options.priority = errors.InRange("priority", spec.priority(), -1000, 1000);
  options.world = ParseWorld(spec.world(), errors.In("world"));
  options.retry = ParseRetry(spec.retry(), errors.In("retry"));
  options.exit_policy = ParseExitPolicy(spec.exit_policy(), errors.In("exit_policy"));
  options.checkpoint = ParseCheckpoint(spec.checkpoint(), errors.In("checkpoint"));
  CheckDeadlines(spec, errors, options);
  options.hang = ParseHang(spec.hang(), errors.In("hang"));
  options.labels = ParseLabels(errors, "labels", spec.labels(), kMaxLabelLength);
  options.annotations = ParseLabels(errors, "annotations", spec.annotations(), kMaxAnnotationLength);
  options.suspend = spec.suspend();
  if (spec.has_seed()) options.seed = spec.seed();

  const bool is_gan = spec.kind_case() == v1::JobSpec::kQodaGan;
  if (is_gan) {
    RefuseLanguageModelSections(spec, errors);
  } else {
    ParseLanguageModelSections(spec, options, errors);
  }
  FieldErrors communication = errors.In("communication");
  options.communication = ParseCommunication(spec.communication(), communication);

  switch (spec.kind_case()) {
    case v1::JobSpec::kPretrain:
      options.kind = PretrainOptions{ParseSamples(spec.pretrain(), errors.In("pretrain"))};
      break;
    case v1::JobSpec::kQat:
      options.kind = QatOptions{ParseSamples(spec.qat(), errors.In("qat"))};
      break;
    case v1::JobSpec::kQodaGan: {
      FieldErrors qoda_gan = errors.In("qoda_gan");
      const QodaGanOptions kind = ParseQodaGan(spec.qoda_gan(), options.world.max, qoda_gan);
      CheckQodaCommunication(kind, options.communication, communication);
      options.kind = kind;
      break;
    }
    case v1::JobSpec::kPruneSearch: {
      FieldErrors kind = errors.In("prune_search");
      options.kind = ParsePruneSearch(spec.prune_search(), spec.has_training(), kind);
      break;
    }
    case v1::JobSpec::kPruneTask: {
      FieldErrors kind = errors.In("prune_task");
      options.kind = ParsePruneTask(spec.prune_task(), kind);
      break;
    }
    case v1::JobSpec::kSelectData: {
      FieldErrors kind = errors.In("select_data");
      options.kind = ParseSelectData(spec.select_data(), kind);
      break;
    }
    case v1::JobSpec::kStudy: {
      FieldErrors kind = errors.In("study");
      options.kind = ParseStudy(spec.study(), ShapeOf(options.model), kind);
      break;
    }
    case v1::JobSpec::KIND_NOT_SET:
      errors.Add("", "no job kind; give one of: pretrain, qat, qoda_gan, prune_search, select_data, study");
      break;
  }
  const bool is_study = spec.kind_case() == v1::JobSpec::kStudy;
  if (!is_gan) CheckShard(spec, options, errors);
  if (!is_gan) CheckOffload(spec, options, errors);
  if (!is_gan && !is_study && spec.kind_case() != v1::JobSpec::kSelectData) CheckRelations(spec, options, errors);
  if (is_study && errors.violations().empty()) CheckStudyTrainings(spec, options, errors);
  options.depends_on = ParseDependencies(spec, options, errors);
  TY_RETURN_IF_ERROR(errors.ToStatus());
  return options;
}

bool IsDriver(const KindOptions& kind) {
  return std::holds_alternative<PruneSearchOptions>(kind) || std::holds_alternative<StudyOptions>(kind);
}

WorldOptions GangOf(const JobOptions& options) {
  if (!IsDriver(options.kind)) return options.world;
  WorldOptions gang;
  gang.slot_type = SlotType::kDriver;
  gang.threads_per_rank = options.world.threads_per_rank;
  return gang;
}

int64_t TotalSteps(const JobOptions& options) {
  return std::visit(Overloaded{
                        [&](const PretrainOptions&) { return options.training.steps; },
                        [&](const QatOptions&) { return options.training.steps; },
                        [](const QodaGanOptions& gan) { return gan.updates; },
                        // a unit is a generation; what leads up to the first and follows the last are units too
                        [](const PruneSearchOptions& prune) { return int64_t{prune.search.generations} + 3; },
                        [](const PruneTaskOptions&) { return int64_t{1}; },
                        [](const SelectDataOptions&) { return int64_t{kSelectionStages}; },
                        [](const StudyOptions&) { return int64_t{1}; },
                    },
                    options.kind);
}

std::string KindName(const v1::JobSpec& spec) {
  const auto* kind = v1::JobSpec::descriptor()->FindOneofByName("kind");
  const auto* field = v1::JobSpec::GetReflection()->GetOneofFieldDescriptor(spec, kind);
  return field == nullptr ? "" : field->name();
}

std::string GeneratedName(const v1::JobSpec& spec, absl::string_view suffix) {
  return absl::StrCat(absl::StrReplaceAll(KindName(spec), {{"_", "-"}}), "-", suffix);
}

std::string SpecDigest(const v1::JobSpec& spec) {
  v1::JobSpec fixed = spec;
  fixed.clear_priority();
  fixed.clear_queue();
  fixed.clear_labels();
  fixed.clear_annotations();
  fixed.clear_suspend();
  return DigestOfMessage(fixed);
}

std::string RequestDigest(const v1::JobSpec& spec) {
  return DigestOfMessage(spec);
}

}  // namespace trainyard::spec
