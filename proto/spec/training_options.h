// The sections that all training kinds share, typed and with their defaults: model, data, training; for communication
// see communication_options.h. Ranges are enforced by the parsers in training_options.cc and are stated here beside
// each field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "proto/spec/communication_options.h"
#include "proto/spec/linear_options.h"
#include "proto/spec/model_presets.h"
#include "proto/spec/optimizer_options.h"

namespace trainyard::v1 {
class DataSpec;
class ModelSpec;
class TrainingSpec;
}  // namespace trainyard::v1

namespace trainyard::spec {

class FieldErrors;

enum class FloatType { kFp32, kBf16 };

// ---- model ----

// A named shape of model_presets.h; weights start from the job's seed.
struct PresetModel {
  std::string name;
  LlamaShape shape;
};
// A folder in Hugging Face layout, relative to the workers' data root or absolute.
struct PathModel {
  std::string path;
  bool from_scratch = false;  // true: take only the shape
};
// A shape given in the spec. Required: vocab_size, hidden_size, intermediate_size, num_hidden_layers,
// num_attention_heads. num_key_value_heads defaults to the query heads, head_dim to hidden_size / heads.
struct ShapeModel {
  LlamaShape shape;
};

// What another job exported, as the spec names it; for the worker it becomes a PathModel (references.h).
struct ArtifactModel {
  std::string job;
  std::string artifact = "model";
  bool from_scratch = false;
};

struct ModelOptions {
  std::variant<PresetModel, PathModel, ShapeModel, ArtifactModel> source;
  FloatType dtype = FloatType::kFp32;  // storage of weights and activations
};

// The shape as far as the spec tells it: null for a PathModel or an ArtifactModel.
const LlamaShape* ShapeOf(const ModelOptions& options);

// ---- data ----

struct DataOptions {
  // Exactly one of these.
  std::string path;                      // tokens in shards
  std::string selection;                 // a select_data job; for the worker it becomes `samples` (references.h)
  std::string samples;                   // a weighted sample set
  int32_t sequence_length = 1024;        // 1..1,048,576; at most the model's positions
  std::optional<uint64_t> shuffle_seed;  // unset: the job's seed
};

// ---- training ----

enum class ScheduleShape { kConstant, kCosine, kLinear, kWsd };

struct ScheduleOptions {
  ScheduleShape shape = ScheduleShape::kCosine;
  int64_t warmup_steps = 0;     // 0..training.steps
  double final_fraction = 0.1;  // [0, 1] of the peak; not for constant
  double decay_fraction = 0.2;  // (0, 1] of all steps; WSD only; warm-up and decay must not overlap
};

struct EvaluationOptions {
  int64_t interval_steps = 100;  // 0..1,000,000,000; 0: never
  int32_t batches = 8;           // 1..1,000,000 micro-batches of the validation split, over all ranks
};

enum class NanPolicy { kFail, kSkip };
enum class Recompute { kNone, kBlock };
enum class Shard { kNone, kZero1, kGrads };  // kZero1 and kGrads: adamw and sgd; kGrads: gradients that are not coded

// What lives in pinned memory of the host; of jobs on GPU slots (docs/training-memory.md).
struct OffloadOptions {
  bool moments = false;    // adamw; sgd with momentum
  bool master = false;     // adamw and sgd; model.dtype bf16
  bool residuals = false;  // recompute: block
  bool any() const { return moments || master || residuals; }
};

struct TrainingOptions {
  int64_t steps = 0;         // required, 1..1,000,000,000
  int32_t micro_batch = 4;   // 1..65,536 sequences a rank
  int32_t accumulation = 1;  // 1..65,536
  LinearOptions linear;      // fp32, or bf16 if that is model.dtype; quest in a qat job
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
  double clip_norm = 1.0;  // [0, 1,000,000]; 0: off
  EvaluationOptions evaluation;
  NanPolicy nan_policy = NanPolicy::kFail;
  double alarm_z_score = 6.0;  // [0, 1000]; 0: off
  int32_t lm_head_chunks = 1;  // 1..1024; divides micro_batch * sequence_length
  Recompute recompute = Recompute::kNone;
  Shard shard = Shard::kNone;  // docs/training-memory.md
  OffloadOptions offload;
};

// Each adds all problems of its section to `errors`, whose path is the section's. What depends on two sections is
// checked by ParseJob.
ModelOptions ParseModel(const v1::ModelSpec& spec, FieldErrors& errors);
DataOptions ParseData(const v1::DataSpec& spec, FieldErrors& errors);
TrainingOptions ParseTraining(const v1::TrainingSpec& spec, FieldErrors& errors);

}  // namespace trainyard::spec
