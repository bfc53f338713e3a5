// Training of a language model over a token stream, from scratch or from a model folder: all of pretrain, and what
// other kinds that train one share.
//
// Metrics of a unit: loss, gradient_norm, learning_rate, tokens, tokens_per_second, mfu (model FLOPs a second of this
// rank over its measured f32 GEMM rate), loss_z_score, gradient_norm_z_score, alarm (0 or 1), update_dropped (0 or 1);
// evaluation_loss on the steps that evaluate; with several ranks comm_seconds and comm_exposed_seconds (of the
// exchange, and what of it the step waited for), comm_bytes (sent by this rank), compression_ratio; with training.shard
// gather_bytes and gather_seconds (weights and sums of the norm, sent by this rank beside these); what the optimizer
// tells of itself (worker/optim/*_optimizer.h). Sections: prepare, train, evaluate, export, sample.
//
// Result of rank 0: artifact "model" (a Hugging Face folder in the attempt's directory), values final_loss,
// evaluation_loss (if there is a validation split), steps, tokens, parameters; one sample a prompt, the prompt in
// front.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "proto/spec/job_options.h"
#include "worker/data/batch_source.h"
#include "worker/jobs/job.h"
#include "worker/model/config.h"
#include "worker/train/exchange_metrics.h"
#include "worker/train/trainer.h"

namespace trainyard::jobs {

class LanguageModelJob : public Job {
 public:
  LanguageModelJob(const spec::JobOptions& options, const spec::TextSamples& samples)
      : options_(options), samples_(samples) {}

  absl::Status Prepare(JobContext& context) override;
  std::map<std::string, int64_t> MemoryPlan() const override;
  absl::Status Initialize() override;
  absl::Status Restore(ckpt::CheckpointReader& reader) override;
  absl::Status Save(ckpt::CheckpointWriter& writer) override;
  int64_t step() const override { return trainer_->step(); }
  absl::StatusOr<UnitResult> RunUnit() override;
  absl::StatusOr<v1::JobResult> Finish() override;

 protected:
  // What a kind exports beside the model: on rank 0, in section "export". `data_directory` has the tokenizer.
  virtual absl::Status ExportMore(const std::string& /*data_directory*/, v1::JobResult* /*result*/) {
    return absl::OkStatus();
  }
  static void AddArtifact(const std::string& name, const std::string& path, int64_t bytes, v1::JobResult* result);

  const spec::JobOptions& options() const { return options_; }
  const model::ModelConfig& config() const { return config_; }
  const JobPlace& place() const { return context_->place(); }
  train::Trainer& trainer() { return *trainer_; }

 private:
  absl::Status Connect();
  // Into *loss; leaves it alone if the ranks were asked to stop.
  absl::Status Evaluate(std::optional<double>* loss);
  bool IsAlarm(const train::StepResult& result) const;
  // masks.safetensors, if the optimizer pruned; adds its size to *bytes.
  absl::Status ExportMasks(const std::string& directory, int64_t* bytes);

  const spec::JobOptions options_;
  const spec::TextSamples samples_;
  JobContext* context_ = nullptr;
  std::string weights_directory_;
  model::ModelConfig config_;
  std::unique_ptr<data::BatchSource> rows_;
  std::string data_directory_;  // has the tokenizer
  std::unique_ptr<train::Trainer> trainer_;
  double gemm_rate_ = 0;
  bool is_connected_ = false;
  double last_loss_ = 0;
  train::ExchangeMetrics exchange_metrics_;
  train::GatherStats gathered_;  // until the last unit
};

}  // namespace trainyard::jobs
