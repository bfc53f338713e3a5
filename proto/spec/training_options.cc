#include "proto/spec/training_options.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/overloaded.h"
#include "proto/spec/choice.h"
#include "proto/spec/field_errors.h"
#include "proto/v1/job.pb.h"

namespace trainyard::spec {
namespace {

constexpr int64_t kMaxSteps = 1'000'000'000;

// One of `lowest`..`highest`, required.
int32_t RequiredSize(FieldErrors& errors, absl::string_view name, bool given, int32_t value, int32_t lowest,
                     int32_t highest) {
  if (!given) {
    errors.Add(name, absl::StrCat("missing; give a value in [", lowest, ", ", highest, "]"));
    return 0;
  }
  return errors.InRange(name, value, lowest, highest);
}

LlamaShape ParseShape(const v1::LlamaShape& spec, FieldErrors& errors) {
  const size_t before = errors.violations().size();
  LlamaShape shape;
  shape.vocab_size = RequiredSize(errors, "vocab_size", spec.has_vocab_size(), spec.vocab_size(), 2, 16'777'216);
  shape.hidden_size = RequiredSize(errors, "hidden_size", spec.has_hidden_size(), spec.hidden_size(), 2, 65'536);
  shape.intermediate_size =
      RequiredSize(errors, "intermediate_size", spec.has_intermediate_size(), spec.intermediate_size(), 1, 1'048'576);
  shape.num_hidden_layers =
      RequiredSize(errors, "num_hidden_layers", spec.has_num_hidden_layers(), spec.num_hidden_layers(), 1, 1024);
  shape.num_attention_heads =
      RequiredSize(errors, "num_attention_heads", spec.has_num_attention_heads(), spec.num_attention_heads(), 1, 1024);
  shape.num_key_value_heads = shape.num_attention_heads;
  if (spec.has_num_key_value_heads()) {
    shape.num_key_value_heads = errors.InRange("num_key_value_heads", spec.num_key_value_heads(), 1, 1024);
  }
  if (spec.has_head_dim()) shape.head_dim = errors.InRange("head_dim", spec.head_dim(), 2, 1024);
  if (spec.has_rope_theta()) shape.rope_theta = errors.InRange("rope_theta", spec.rope_theta(), 1.0, 1e12);
  if (spec.has_rms_norm_eps()) shape.rms_norm_eps = errors.InRangeAbove("rms_norm_eps", spec.rms_norm_eps(), 0.0, 0.1);
  shape.attention_bias = spec.attention_bias();
  shape.tie_word_embeddings = spec.tie_word_embeddings();
  if (spec.has_max_position_embeddings()) {
    shape.max_position_embeddings =
        errors.InRange("max_position_embeddings", spec.max_position_embeddings(), 1, 16'777'216);
  }
  if (errors.violations().size() != before) return shape;  // relations of bad numbers tell nothing

  if (shape.num_attention_heads % shape.num_key_value_heads != 0) {
    errors.Add("num_key_value_heads", absl::StrCat(shape.num_key_value_heads, " does not divide num_attention_heads ",
                                                   shape.num_attention_heads));
  }
  if (shape.head_dim == 0) {
    if (shape.hidden_size % shape.num_attention_heads != 0) {
      errors.Add("hidden_size", absl::StrCat(shape.hidden_size, " is not a multiple of num_attention_heads ",
                                             shape.num_attention_heads, "; change one or give head_dim"));
      return shape;
    }
    shape.head_dim = shape.hidden_size / shape.num_attention_heads;
  }
  if (shape.head_dim % 2 != 0) {
    errors.Add(spec.has_head_dim() ? "head_dim" : "hidden_size",
               absl::StrCat("head size ", shape.head_dim, " is odd; rotary embedding pairs its halves"));
  }
  if (shape.head_dim > 1024) {
    errors.Add("hidden_size", absl::StrCat("head size ", shape.head_dim, " not in [2, 1024]"));
  }
  return shape;
}

// `steps` is 0 if the spec gives none that is valid.
ScheduleOptions ParseSchedule(const v1::Schedule& spec, int64_t steps, FieldErrors& errors) {
  ScheduleOptions options;
  options.shape = Choose<v1::Schedule::Shape, ScheduleShape>(errors, "shape", spec.shape(),
                                                             {{v1::Schedule::SHAPE_COSINE, ScheduleShape::kCosine},
                                                              {v1::Schedule::SHAPE_CONSTANT, ScheduleShape::kConstant},
                                                              {v1::Schedule::SHAPE_LINEAR, ScheduleShape::kLinear},
                                                              {v1::Schedule::SHAPE_WSD, ScheduleShape::kWsd}});
  if (spec.has_warmup_steps()) {
    options.warmup_steps = errors.InRange("warmup_steps", spec.warmup_steps(), 0, steps > 0 ? steps : kMaxSteps);
  }
  if (spec.has_final_fraction()) {
    options.final_fraction = errors.InRange("final_fraction", spec.final_fraction(), 0, 1);
    if (options.shape == ScheduleShape::kConstant) errors.Add("final_fraction", "has no effect with shape constant");
  }
  if (spec.has_decay_fraction()) {
    options.decay_fraction = errors.InRangeAbove("decay_fraction", spec.decay_fraction(), 0, 1);
    if (options.shape != ScheduleShape::kWsd) errors.Add("decay_fraction", "has an effect with shape wsd only");
  }
  if (options.shape == ScheduleShape::kWsd && steps > 0) {
    const auto decay_steps = static_cast<int64_t>(std::ceil(options.decay_fraction * static_cast<double>(steps)));
    if (options.warmup_steps + decay_steps > steps) {
      errors.Add("decay_fraction", absl::StrCat(options.decay_fraction, " of ", steps, " steps is ", decay_steps,
                                                ", which overlaps warmup_steps ", options.warmup_steps));
    }
  }
  return options;
}

OffloadOptions ParseOffload(const v1::TrainingSpec& spec, FieldErrors& errors) {
  OffloadOptions options;
  for (int i = 0; i < spec.offload_size(); ++i) {
    const std::string name = absl::StrCat("offload[", i, "]");
    bool* chosen = nullptr;
    switch (spec.offload(i)) {
      case v1::OFFLOAD_MOMENTS:
        chosen = &options.moments;
        break;
      case v1::OFFLOAD_MASTER:
        chosen = &options.master;
        break;
      case v1::OFFLOAD_RESIDUALS:
        chosen = &options.residuals;
        break;
      default:  // only a newer client can send another number
        errors.Add(name, absl::StrCat(static_cast<int>(spec.offload(i)),
                                      " is not a known choice; give moments, master or residuals"));
        continue;
    }
    if (*chosen) errors.Add(name, "is in the list twice");
    *chosen = true;
  }
  return options;
}

}  // namespace

const LlamaShape* ShapeOf(const ModelOptions& options) {
  return std::visit(Overloaded{
                        [](const PresetModel& model) -> const LlamaShape* { return &model.shape; },
                        [](const PathModel&) -> const LlamaShape* { return nullptr; },
                        [](const ArtifactModel&) -> const LlamaShape* { return nullptr; },
                        [](const ShapeModel& model) -> const LlamaShape* { return &model.shape; },
                    },
                    options.source);
}

ModelOptions ParseModel(const v1::ModelSpec& spec, FieldErrors& errors) {
  ModelOptions options;
  switch (spec.source_case()) {
    case v1::ModelSpec::kPreset: {
      PresetModel model{spec.preset(), {}};
      if (const auto shape = FindModelPreset(spec.preset())) {
        model.shape = *shape;
      } else {
        errors.Add("preset",
                   absl::StrCat("'", spec.preset(), "' is not one of ", absl::StrJoin(ModelPresetNames(), ", ")));
      }
      options.source = std::move(model);
      break;
    }
    case v1::ModelSpec::kPath:
      if (spec.path().empty()) errors.Add("path", "empty; give a folder with config.json");
      options.source = PathModel{spec.path(), spec.from_scratch()};
      break;
    case v1::ModelSpec::kShape: {
      FieldErrors shape = errors.In("shape");
      options.source = ShapeModel{ParseShape(spec.shape(), shape)};
      break;
    }
    case v1::ModelSpec::kArtifact: {
      ArtifactModel model{spec.artifact().job(), "model", spec.from_scratch()};
      if (model.job.empty()) errors.Add("artifact.job", "missing; give the name of a job");
      if (!spec.artifact().artifact().empty()) model.artifact = spec.artifact().artifact();
      options.source = std::move(model);
      break;
    }
    case v1::ModelSpec::SOURCE_NOT_SET:
      errors.Add("", "missing; give one of model.preset, model.path, model.shape, model.artifact");
      break;
  }
  if (spec.has_from_scratch() && !spec.from_scratch() &&
      (spec.source_case() == v1::ModelSpec::kPreset || spec.source_case() == v1::ModelSpec::kShape)) {
    errors.Add("from_scratch", "false needs model.path: a preset or a shape has no weights to start from");
  }
  options.dtype = Choose<v1::FloatType, FloatType>(
      errors, "dtype", spec.dtype(),
      {{v1::FLOAT_TYPE_FP32, FloatType::kFp32}, {v1::FLOAT_TYPE_BF16, FloatType::kBf16}});
  return options;
}

DataOptions ParseData(const v1::DataSpec& spec, FieldErrors& errors) {
  DataOptions options;
  options.path = spec.path();
  options.selection = spec.selection();
  options.samples = spec.samples();
  const int given = int{!options.path.empty()} + int{!options.selection.empty()} + int{!options.samples.empty()};
  if (given == 0) {
    errors.Add("path", "missing; give a folder made by 'trainyard data tokenize', or selection or samples instead");
  } else if (given > 1) {
    errors.Add("path", "only one of path, selection and samples may be given");
  }
  if (spec.has_sequence_length()) {
    options.sequence_length = errors.InRange("sequence_length", spec.sequence_length(), 1, 1'048'576);
  }
  if (spec.has_shuffle_seed()) options.shuffle_seed = spec.shuffle_seed();
  return options;
}

TrainingOptions ParseTraining(const v1::TrainingSpec& spec, FieldErrors& errors) {
  TrainingOptions options;
  int64_t valid_steps = 0;
  if (!spec.has_steps()) {
    errors.Add("steps", absl::StrCat("missing; give a value in [1, ", kMaxSteps, "]"));
  } else {
    options.steps = errors.InRange("steps", spec.steps(), 1, kMaxSteps);
    if (options.steps == spec.steps()) valid_steps = options.steps;
  }
  if (spec.has_micro_batch()) options.micro_batch = errors.InRange("micro_batch", spec.micro_batch(), 1, 65'536);
  if (spec.has_accumulation()) options.accumulation = errors.InRange("accumulation", spec.accumulation(), 1, 65'536);
  FieldErrors linear = errors.In("linear");
  options.linear = ParseLinear(spec.linear(), linear);

  FieldErrors optimizer = errors.In("optimizer");
  options.optimizer = ParseOptimizer(spec.optimizer(), optimizer);
  FieldErrors schedule = errors.In("schedule");
  options.schedule = ParseSchedule(spec.schedule(), valid_steps, schedule);

  if (spec.has_clip_norm()) options.clip_norm = errors.InRange("clip_norm", spec.clip_norm(), 0, 1'000'000);
  FieldErrors evaluation = errors.In("evaluation");
  if (spec.evaluation().has_interval_steps()) {
    options.evaluation.interval_steps =
        evaluation.InRange("interval_steps", spec.evaluation().interval_steps(), 0, kMaxSteps);
  }
  if (spec.evaluation().has_batches()) {
    options.evaluation.batches = evaluation.InRange("batches", spec.evaluation().batches(), 1, 1'000'000);
  }
  options.nan_policy = Choose<v1::NanPolicy, NanPolicy>(
      errors, "nan_policy", spec.nan_policy(),
      {{v1::NAN_POLICY_FAIL, NanPolicy::kFail}, {v1::NAN_POLICY_SKIP, NanPolicy::kSkip}});
  if (spec.has_alarm_z_score()) options.alarm_z_score = errors.InRange("alarm_z_score", spec.alarm_z_score(), 0, 1000);
  if (spec.has_lm_head_chunks()) {
    options.lm_head_chunks = errors.InRange("lm_head_chunks", spec.lm_head_chunks(), 1, 1024);
  }
  options.recompute = Choose<v1::Recompute, Recompute>(
      errors, "recompute", spec.recompute(),
      {{v1::RECOMPUTE_NONE, Recompute::kNone}, {v1::RECOMPUTE_BLOCK, Recompute::kBlock}});
  options.shard = Choose<v1::Shard, Shard>(
      errors, "shard", spec.shard(),
      {{v1::SHARD_NONE, Shard::kNone}, {v1::SHARD_ZERO1, Shard::kZero1}, {v1::SHARD_GRADS, Shard::kGrads}});
  options.offload = ParseOffload(spec, errors);
  return options;
}

}  // namespace trainyard::spec
