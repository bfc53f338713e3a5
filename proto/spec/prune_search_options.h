// The job kinds prune_search and prune_task, typed and with their defaults. Free of protobuf, so that worker/ may
// include it. Ranges are enforced by the parsers and stated beside each field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace trainyard::v1 {
class PruneSearchSpec;
class PruneTaskSpec;
}  // namespace trainyard::v1

namespace trainyard::spec {

class FieldErrors;

enum class PruneFloat { kBf16, kFp16, kFp32 };
enum class PruneFitness { kKl, kPerplexity, kTopKKl };
enum class PruneEnforcement { kShrink, kMask, kNone };
enum class PruneBaseline { kUniform, kSpdy, kMagnitude, kDepth };
enum class PruneModule { kAttention, kMlp };

struct PruneDatabaseOptions {
  // Strictly increasing, 2..256 numbers, the first 0; the last must be all columns and attention's must be multiples of
  // head_dim, which is checked as soon as the model is known. Empty: `levels` equal steps.
  std::vector<int32_t> levels_attention;
  std::vector<int32_t> levels_mlp;
  int32_t levels = 11;                            // 2..256; only without the lists
  int64_t calibration_tokens = int64_t{1} << 23;  // 1..2^40
  double relative_damping = 0.01;                 // [0, 1]
  PruneFloat store_dtype = PruneFloat::kBf16;
  bool prune_kv_heads = true;
};

struct PruneStageOptions {
  int32_t survivors = 1;          // 1..100,000; not more than before, 1 in the last stage
  int64_t train_tokens = 0;       // 0..2^40
  int64_t evaluation_tokens = 1;  // 1..2^40
};

struct PruneFineTuneOptions {
  double learning_rate = 1e-5;  // (0, 1]
  int32_t batch_documents = 1;  // 1..65,536
  double weight_decay = 0.01;   // [0, 10]
  PruneEnforcement enforcement = PruneEnforcement::kShrink;
  PruneFloat master_dtype = PruneFloat::kFp32;  // fp32 or bf16
};

struct PruneSearchRules {
  // One of them; unset both: level (L - 1) / 2.
  std::optional<int32_t> target_level;       // 0..levels - 1
  std::optional<int64_t> target_parameters;  // >= 1
  int32_t generations = 200;                 // 1..1,000,000
  int32_t offspring = 16;                    // 1..100,000
  // The authors' four stages: 8, 4, 2, 1 survivors, 10k to 200k tokens to train on, 1k to 8k to evaluate on.
  std::vector<PruneStageOptions> stages;  // 1..16
  int32_t max_flips = 3;                  // 1..1000
  PruneFitness fitness = PruneFitness::kKl;
  int32_t kl_top_k = 512;  // 1..vocab_size
  PruneFineTuneOptions fine_tune;
  bool resample = true;
  double parameters_tolerance = 0.01;        // [0, 1]
  int64_t train_pool_tokens = 500'000;       // 1..2^40
  int64_t evaluation_pool_tokens = 100'000;  // 1..2^40
};

struct PruneSearchOptions {
  PruneDatabaseOptions database;
  PruneSearchRules search;
  std::vector<PruneBaseline> baselines;  // each once
  bool continue_training = false;        // true if the job has a section `training`, unless given
  int32_t evaluation_batches = 8;        // 1..1,000,000
};

// ---- tasks ----

struct PruneCalibrateTask {
  int64_t tokens = 1;  // 1..2^40
};
struct PruneLayersTask {
  std::string hessians;  // required
  int32_t block = 0;     // 0..
  PruneModule module = PruneModule::kAttention;
  std::vector<int32_t> removed_columns;  // as a database's levels
  double relative_damping = 0.01;        // [0, 1]
  PruneFloat store_dtype = PruneFloat::kBf16;
  bool by_magnitude = false;
};
struct PruneCandidateTask {
  std::string database;                   // required
  std::vector<int32_t> attention_levels;  // one a block, >= 0
  std::vector<int32_t> mlp_levels;
  int64_t draw = 0;               // >= 0
  int64_t train_tokens = 0;       // 0..2^40
  int64_t evaluation_tokens = 1;  // 1..2^40
  int64_t train_pool_tokens = 1;
  int64_t evaluation_pool_tokens = 1;
  PruneFitness fitness = PruneFitness::kKl;
  int32_t kl_top_k = 512;  // >= 1
  PruneFineTuneOptions fine_tune;
  bool prune_kv_heads = true;
  bool export_model = false;
  int32_t perplexity_batches = 0;  // 0..1,000,000; 0: not measured
};
struct PruneTaskOptions {
  std::variant<PruneCalibrateTask, PruneLayersTask, PruneCandidateTask> task;
};

// Each adds all problems to `errors`, whose path is the section's.
PruneSearchOptions ParsePruneSearch(const v1::PruneSearchSpec& spec, bool has_training, FieldErrors& errors);
PruneTaskOptions ParsePruneTask(const v1::PruneTaskSpec& spec, FieldErrors& errors);

// The levels of a module with `columns` columns: those given, checked against the model, or equal steps in multiples of
// `group`. Problems go to `errors` under `name`.
std::vector<int32_t> LevelsOf(const std::vector<int32_t>& given, int32_t levels, int32_t columns, int32_t group,
                              const char* name, FieldErrors& errors);

}  // namespace trainyard::spec
