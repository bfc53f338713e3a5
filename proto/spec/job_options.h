// A job spec after validation: plain values, defaults filled in. The defaults live here and in the headers it includes
// and nowhere else; client, coordinator and workers all call ParseJob, and no other code reads the fields of
// v1::JobSpec.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/spec/prune_search_options.h"
#include "proto/spec/qoda_gan_options.h"
#include "proto/spec/select_data_options.h"
#include "proto/spec/study_options.h"
#include "proto/spec/training_options.h"

namespace trainyard::v1 {
class JobSpec;
}

namespace trainyard::spec {

enum class SlotType { kCpu, kGpu, kDriver };

// One rank owns one slot. `min` and `max` are equal until elastic jobs exist; giving one sets both.
struct WorldOptions {
  int32_t min = 1;  // 1..100,000
  int32_t max = 1;
  std::optional<int32_t> slots_per_worker;  // 1..64: at most so many ranks on one worker; unset: as many as fit
  SlotType slot_type = SlotType::kCpu;
  int32_t threads_per_rank = 1;  // 1..1024
};

struct RetryOptions {
  int32_t max_user_failures = 0;                        // 0..1,000,000
  std::optional<int32_t> max_infra_failures;            // 0..1,000,000; unset: unlimited
  int32_t no_progress_limit = 3;                        // 0..1,000,000 attempts; 0: never give up for this
  absl::Duration backoff_initial = absl::Seconds(10);   // 1 s..1 h, <= maximum
  absl::Duration backoff_maximum = absl::Seconds(600);  // 1 s..1 h
};

// Exit codes 1..125, a code in one list only. A code that the user lists leaves the other list's default.
struct ExitPolicyOptions {
  std::vector<int32_t> always_retry = {75};
  std::vector<int32_t> never_retry = {64, 65, 78};
};

struct CheckpointOptions {
  // Exactly one is set: time, or steps if the user says so.
  std::optional<absl::Duration> interval = absl::Seconds(600);  // 1 s..7 days
  std::optional<int64_t> interval_steps;                        // >= 1
  int32_t keep_last = 3;                                        // 1..1000
  bool on_stop = true;
};

struct HangOptions {
  double factor = 5.0;                       // [2, 1000]
  absl::Duration floor = absl::Seconds(60);  // 1 s..1 day
  int32_t warmup_steps = 5;                  // 0..1,000,000
};

// ---- kinds ----

// Texts that the trained model continues at the end of a job.
struct TextSamples {
  std::vector<std::string> prompts;  // sample_prompts: at most 16, each 1..4096 bytes
  int32_t tokens = 64;               // sample_tokens: 1..4096
};
struct PretrainOptions {
  TextSamples samples;
};
struct QatOptions {
  TextSamples samples;
};
using KindOptions = std::variant<PretrainOptions, QatOptions, QodaGanOptions, PruneSearchOptions, PruneTaskOptions,
                                 SelectDataOptions, StudyOptions>;

// A job that must have ended first.
struct DependencyOptions {
  std::string job;  // name or uid
  bool must_succeed = true;
};

struct JobOptions {
  std::string name;  // RFC 1035 label, at most 63 characters; empty: to be generated
  std::string name_space = "default";
  std::string queue = "default";
  int32_t priority = 0;  // -1000..1000
  WorldOptions world;
  RetryOptions retry;
  ExitPolicyOptions exit_policy;
  CheckpointOptions checkpoint;
  absl::Duration active_deadline = absl::InfiniteDuration();  // 1 s..10 years
  absl::Duration queue_deadline = absl::InfiniteDuration();   // 1 s..10 years
  absl::Duration ttl_after_finish = absl::Hours(7 * 24);      // 1 s..10 years
  absl::Duration stop_grace = absl::Seconds(60);              // 0..1 h
  absl::Duration lost_after = absl::ZeroDuration();           // 0..1 h
  HangOptions hang;
  std::map<std::string, std::string> labels;       // at most 64; key and value at most 63 characters
  std::map<std::string, std::string> annotations;  // at most 64; key at most 63, value at most 4096 bytes
  bool suspend = false;
  std::optional<uint64_t> seed;  // unset only before the coordinator has accepted the job
  // At most 64, each once: those of the spec, and the jobs that its references name.
  std::vector<DependencyOptions> depends_on;

  // Of the kinds that work on a language model; qoda_gan has its own in its kind. prune_search uses `training` for the
  // last stage, study for all its trials; prune_task and select_data only the parts that they name.
  ModelOptions model;
  DataOptions data;
  TrainingOptions training;
  CommunicationOptions communication;
  KindOptions kind;
};

// Kinds that ask for trials: their one rank takes a driver slot, and section world is about their trials.
bool IsDriver(const KindOptions& kind);

// The gang that the job itself needs.
WorldOptions GangOf(const JobOptions& options);

// Steps of the whole job, of whatever kind.
int64_t TotalSteps(const JobOptions& options);

// InvalidArgument names every problem with its path: "training.optimizer.adamw.learning_rate: -1 not in (0, 10]".
// GetFieldViolations (proto/rpc/error_details.h) gives them as a list. Deterministic; touches no file.
absl::StatusOr<JobOptions> ParseJob(const v1::JobSpec& spec);

// Name of the kind that is set, for example "pretrain"; empty if none.
std::string KindName(const v1::JobSpec& spec);

// A name for a job that was given none: its kind and `suffix`, as a label.
std::string GeneratedName(const v1::JobSpec& spec, absl::string_view suffix);

// True for an RFC 1035 label of at most 63 characters: names of jobs, namespaces and queues.
bool IsLabel(absl::string_view name);

// Digest (32 hexadecimal digits) of what never changes after submit, so without priority, queue, labels, annotations
// and suspend: what a checkpoint must agree with.
std::string SpecDigest(const v1::JobSpec& spec);

// Digest of the whole spec: tells whether two requests are the same.
std::string RequestDigest(const v1::JobSpec& spec);

}  // namespace trainyard::spec
