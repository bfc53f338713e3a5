#include "worker/jobs/language_model_job.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/jobs/pretrain_setup.h"
#include "worker/jobs/sample_text.h"
#include "worker/model/hugging_face.h"
#include "worker/model/mask_file.h"
#include "worker/train/exchange_metrics.h"
#include "worker/train/flops.h"
#include "worker/train/plan.h"
#include "worker/train/trainer.h"

namespace trainyard::jobs {
absl::Status LanguageModelJob::Prepare(JobContext& context) {
  context_ = &context;
  const JobPlace& place = context.place();
  TY_ASSIGN_OR_RETURN(PretrainSetup setup, SetUpPretrain(options_, place.data_root, place.rank, place.world_size));
  TY_ASSIGN_OR_RETURN(rows_, OpenRows(setup));
  data_directory_ = setup.loader.directory;
  if (setup.trainer.config.eos_ids.empty() && rows_->end_of_text_id() >= 0) {
    setup.trainer.config.eos_ids = {rows_->end_of_text_id()};
  }
  if (rows_->validation_rows() == 0 && place.rank == 0) {
    LogWarning(setup.loader.directory, ": no validation ", setup.reads_samples ? "sample" : "window", " of ",
               setup.loader.sequence_length, " tokens: there will be no evaluation");
  }
  weights_directory_ = std::move(setup.weights_directory);
  TY_ASSIGN_OR_RETURN(trainer_, train::Trainer::Create(setup.trainer));
  config_ = trainer_->options().config;
  if (place.world_size > 1) {
    comm::ExchangeOptions exchange;
    exchange.communication = options_.communication;
    exchange.seed = options_.seed.value_or(0);
    TY_RETURN_IF_ERROR(trainer_->PrepareExchange(exchange, place.rank, place.world_size));
  }
  gemm_rate_ = train::MeasureGemmRate(trainer_->stream());
  return absl::OkStatus();
}

std::map<std::string, int64_t> LanguageModelJob::MemoryPlan() const {
  const absl::StatusOr<train::TrainingPlan> training =
      train::PlanTraining(trainer_->options(), options_.communication, context_->place().world_size);
  TY_CHECK_OK(training);  // Prepare has made the same
  std::map<std::string, int64_t> plan = training->memory;
  plan.erase("checkpoint");  // the runner's
  return plan;
}

absl::Status LanguageModelJob::Initialize() {
  trainer_->Initialize();
  if (weights_directory_.empty()) return absl::OkStatus();
  return ImportWeights(weights_directory_, config_, trainer_->leading_weights(), trainer_->stream(),
                       [this](size_t parameter) { trainer_->RoundWeight(parameter); });
}

absl::Status LanguageModelJob::Save(ckpt::CheckpointWriter& writer) {
  for (const optim::NamedTensor& state : trainer_->state()) {
    if (state.whole_size > 0) {
      writer.AddTensorPart(state.name, state.tensor, state.part_begin, state.whole_size);
    } else {
      writer.AddTensor(state.name, state.tensor);
    }
  }
  if (comm::ExchangeState* const exchange = trainer_->exchange_state()) {
    for (const comm::NamedState& state : exchange->local_state()) writer.AddLocalTensor(state.name, state.tensor);
    for (const comm::NamedState& state : exchange->replicated_state()) writer.AddTensor(state.name, state.tensor);
    writer.AddText("exchange", exchange->Text());
  }
  const data::LoaderPosition position = rows_->position();
  writer.AddText("trainer", trainer_->StateText());
  writer.AddText("loader", absl::StrCat(position.epoch, " ", position.next_sample));
  writer.AddText("loader_fingerprint", rows_->Fingerprint());
  writer.AddText("last_loss", absl::StrFormat("%.17g", last_loss_));
  // For tools that open a checkpoint without the job.
  writer.AddText("config", model::ToConfigJson(config_, "float32"));
  writer.AddText("data_directory", data_directory_);
  return absl::OkStatus();
}

absl::Status LanguageModelJob::Restore(ckpt::CheckpointReader& reader) {
  TY_ASSIGN_OR_RETURN(const std::string fingerprint, reader.Text("loader_fingerprint"));
  if (fingerprint != rows_->Fingerprint()) {
    return absl::FailedPreconditionError(
        absl::StrCat(options_.data.samples.empty() ? "data.path: " : "data.samples: ", data_directory_,
                     " is not the data set that the checkpoint of step ", reader.step(), " was made with (fingerprint ",
                     rows_->Fingerprint(), ", then ", fingerprint, ")"));
  }
  for (const optim::NamedTensor& state : trainer_->state()) {
    TY_RETURN_IF_ERROR(state.whole_size > 0
                           ? reader.ReadTensorPart(state.name, state.part_begin, state.whole_size, state.tensor)
                           : reader.ReadTensor(state.name, state.tensor));
  }
  if (comm::ExchangeState* const exchange = trainer_->exchange_state()) {
    for (const comm::NamedState& state : exchange->local_state()) {
      TY_RETURN_IF_ERROR(reader.ReadLocalTensor(state.name, state.tensor));
    }
    for (const comm::NamedState& state : exchange->replicated_state()) {
      TY_RETURN_IF_ERROR(reader.ReadTensor(state.name, state.tensor));
    }
    TY_ASSIGN_OR_RETURN(const std::string text, reader.Text("exchange"));
    TY_RETURN_IF_ERROR(exchange->RestoreText(text));
  }
  TY_ASSIGN_OR_RETURN(const std::string trainer, reader.Text("trainer"));
  TY_RETURN_IF_ERROR(trainer_->RestoreState(trainer));
  TY_ASSIGN_OR_RETURN(const std::string last_loss, reader.Text("last_loss"));
  if (!absl::SimpleAtod(last_loss, &last_loss_)) {
    return absl::DataLossError(absl::StrCat("last_loss \"", last_loss, "\" is not a number"));
  }
  TY_ASSIGN_OR_RETURN(const std::string loader, reader.Text("loader"));
  const std::vector<std::string> numbers = absl::StrSplit(loader, ' ');
  data::LoaderPosition position;
  if (numbers.size() != 2 || !absl::SimpleAtoi(numbers[0], &position.epoch) ||
      !absl::SimpleAtoi(numbers[1], &position.next_sample)) {
    return absl::DataLossError(absl::StrCat("loader position \"", loader, "\" is not two numbers"));
  }
  return rows_->Restore(position);
}

absl::Status LanguageModelJob::Connect() {
  if (is_connected_) return absl::OkStatus();
  is_connected_ = true;
  if (context_->place().world_size == 1) return absl::OkStatus();
  return trainer_->Connect(context_->communicator());
}

bool LanguageModelJob::IsAlarm(const train::StepResult& result) const {
  const double limit = options_.training.alarm_z_score;
  if (limit == 0) return false;
  return std::abs(result.loss_z_score) > limit || std::abs(result.norm_z_score) > limit;
}

absl::StatusOr<UnitResult> LanguageModelJob::RunUnit() {
  TY_RETURN_IF_ERROR(Connect());
  const absl::Duration begin = RealClock()->Monotonic();
  TY_ASSIGN_OR_RETURN(const train::StepResult result, trainer_->Step(*rows_));
  const double seconds = absl::ToDoubleSeconds(RealClock()->Monotonic() - begin);
  last_loss_ = result.loss;

  const JobPlace& place = context_->place();
  const double rank_tokens = static_cast<double>(options_.training.micro_batch) * options_.training.accumulation *
                             options_.data.sequence_length;
  UnitResult unit;
  unit.step = trainer_->step();
  unit.total_steps = options_.training.steps;
  unit.done = unit.step >= unit.total_steps;
  unit.metrics["loss"] = result.loss;
  unit.metrics["gradient_norm"] = result.gradient_norm;
  unit.metrics["learning_rate"] = result.learning_rate;
  unit.metrics["tokens"] = rank_tokens * place.world_size;
  unit.metrics["tokens_per_second"] = rank_tokens * place.world_size / seconds;
  unit.metrics["mfu"] =
      train::FlopsPerToken(config_, options_.data.sequence_length) * rank_tokens / seconds / gemm_rate_;
  unit.metrics["loss_z_score"] = result.loss_z_score;
  unit.metrics["gradient_norm_z_score"] = result.norm_z_score;
  unit.metrics["alarm"] = IsAlarm(result) ? 1 : 0;
  unit.metrics["update_dropped"] = result.updated ? 0 : 1;
  trainer_->AddOptimizerMetrics(&unit.metrics);
  exchange_metrics_.Add(trainer_->exchange(), place.world_size, &unit.metrics);
  if (trainer_->is_sharded()) {
    const train::GatherStats now = trainer_->gather_stats();
    unit.metrics["gather_bytes"] = static_cast<double>(now.bytes_sent - gathered_.bytes_sent);
    unit.metrics["gather_seconds"] = now.seconds - gathered_.seconds;
    gathered_ = now;
  }
  if (place.rank == 0 && !result.updated) {
    LogWarning("step ", unit.step, ": loss ", result.loss, ", gradient norm ", result.gradient_norm,
               ": the update was dropped");
  } else if (place.rank == 0 && IsAlarm(result)) {
    LogWarning("step ", unit.step, ": unusual: loss ", result.loss, " (", result.loss_z_score,
               " standard deviations from the last steps), gradient norm ", result.gradient_norm, " (",
               result.norm_z_score, ")");
  }

  const int64_t interval = options_.training.evaluation.interval_steps;
  if (interval > 0 && unit.step % interval == 0 && !unit.done) {  // the last step's is part of Finish
    std::optional<double> loss;
    TY_RETURN_IF_ERROR(Evaluate(&loss));
    if (loss) {
      unit.metrics["evaluation_loss"] = *loss;
      trainer_->AddMaskMetrics(&unit.metrics);
    }
    context_->EnterSection("train");
  }
  return unit;
}

absl::Status LanguageModelJob::Evaluate(std::optional<double>* loss) {
  if (rows_->validation_rows() == 0) return absl::OkStatus();
  context_->EnterSection("evaluate");
  absl::StatusOr<double> mean =
      trainer_->Evaluate(*rows_, options_.training.evaluation.batches, [this] { return context_->AgreeToStop(); });
  if (mean.ok()) *loss = *mean;
  return absl::IsCancelled(mean.status()) ? absl::OkStatus() : mean.status();
}

void LanguageModelJob::AddArtifact(const std::string& name, const std::string& path, int64_t bytes,
                                   v1::JobResult* result) {
  v1::Artifact& artifact = *result->add_artifacts();
  artifact.set_name(name);
  artifact.set_path(path);
  artifact.set_bytes(bytes);
}

absl::Status LanguageModelJob::ExportMasks(const std::string& directory, int64_t* bytes) {
  std::vector<model::MaskTensor> masks;
  for (const optim::PruningMask& mask : trainer_->pruning_masks()) masks.push_back({mask.name, mask.bits});
  if (masks.empty()) return absl::OkStatus();
  TY_ASSIGN_OR_RETURN(const int64_t mask_bytes, WriteMasks(directory, masks, {{"method", "elsa"}}));
  *bytes += mask_bytes;
  return absl::OkStatus();
}

absl::StatusOr<v1::JobResult> LanguageModelJob::Finish() {
  TY_RETURN_IF_ERROR(Connect());
  trainer_->Finalize();  // what is evaluated is what is exported
  std::optional<double> evaluation_loss;
  TY_RETURN_IF_ERROR(Evaluate(&evaluation_loss));
  TY_ASSIGN_OR_RETURN(const bool stops, context_->AgreeToStop());
  if (stops) return absl::CancelledError("asked to stop before the model was exported");

  v1::JobResult result;
  const JobPlace& place = context_->place();
  if (place.rank != 0) return result;
  context_->EnterSection("export");
  const std::string& data_directory = data_directory_;
  const std::string directory = JoinPath(place.attempt_dir, "model");
  const model::NetworkTensors& weights = trainer_->DecodedWeights();
  TY_ASSIGN_OR_RETURN(int64_t bytes,
                      ExportModel(config_, weights.all, {.directory = directory, .tokenizer_source = data_directory}));
  TY_RETURN_IF_ERROR(ExportMasks(directory, &bytes));
  AddArtifact("model", directory, bytes, &result);
  TY_RETURN_IF_ERROR(ExportMore(data_directory, &result));

  (*result.mutable_values())["final_loss"] = last_loss_;
  if (evaluation_loss) (*result.mutable_values())["evaluation_loss"] = *evaluation_loss;
  (*result.mutable_values())["steps"] = static_cast<double>(step());
  (*result.mutable_values())["parameters"] = static_cast<double>(model::ParameterCount(config_));
  (*result.mutable_values())["tokens"] = static_cast<double>(step()) * options_.training.micro_batch *
                                         options_.training.accumulation * options_.data.sequence_length *
                                         place.world_size;
  if (samples_.prompts.empty()) return result;

  context_->EnterSection("sample");
  SampleOptions sampling;
  sampling.max_tokens = samples_.tokens;
  sampling.dtype = trainer_->options().dtype;
  TY_ASSIGN_OR_RETURN(TextSampler sampler, TextSampler::Create(config_, &trainer_->scheme(), &weights, data_directory,
                                                               sampling, &trainer_->stream()));
  for (const std::string& prompt : samples_.prompts) {
    const auto go_on = [this](absl::string_view) { return !context_->ShouldStop(); };
    TY_ASSIGN_OR_RETURN(const std::string text, sampler.Continue(prompt, go_on));
    if (context_->ShouldStop()) return absl::CancelledError("asked to stop while sampling");
    result.add_samples(absl::StrCat(prompt, text));
  }
  return result;
}

}  // namespace trainyard::jobs
