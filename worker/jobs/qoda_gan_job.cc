#include "worker/jobs/qoda_gan_job.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/jobs/qoda_gan_setup.h"
#include "worker/model/safetensors.h"
#include "worker/train/exchange_metrics.h"
#include "worker/train/gan_plan.h"

namespace trainyard::jobs {
namespace {

using kernels::TensorView;

class QodaGanJob final : public Job {
 public:
  explicit QodaGanJob(const spec::JobOptions& options)
      : options_(options), gan_(std::get<spec::QodaGanOptions>(options.kind)) {}

  absl::Status Prepare(JobContext& context) override;
  std::map<std::string, int64_t> MemoryPlan() const override { return memory_plan_; }
  absl::Status Initialize() override;
  absl::Status Restore(ckpt::CheckpointReader& reader) override;
  absl::Status Save(ckpt::CheckpointWriter& writer) override;
  int64_t step() const override { return trainer_->step(); }
  absl::StatusOr<UnitResult> RunUnit() override;
  absl::StatusOr<v1::JobResult> Finish() override;

 private:
  absl::Status Connect();
  // Into *values; leaves them alone if the ranks were asked to stop.
  absl::Status Evaluate(std::map<std::string, double>* values);
  absl::Status WriteSamples();
  // Bytes of the files.
  absl::StatusOr<int64_t> Export(const std::string& directory);
  std::string samples_directory() const { return JoinPath(context_->place().attempt_dir, "samples"); }
  bool IsDue(int64_t interval) const { return interval > 0 && step() % interval == 0; }

  const spec::JobOptions options_;
  const spec::QodaGanOptions& gan_;
  JobContext* context_ = nullptr;
  std::unique_ptr<data::SampleSource> source_;
  std::unique_ptr<train::GanTrainer> trainer_;
  std::unique_ptr<train::GanEvaluator> evaluator_;
  train::ExchangeMetrics exchange_metrics_;
  std::map<std::string, int64_t> memory_plan_;
  bool is_connected_ = false;
  bool has_samples_ = false;
  double last_loss_d_ = 0, last_loss_g_ = 0;
};

absl::Status QodaGanJob::Prepare(JobContext& context) {
  context_ = &context;
  const JobPlace& place = context.place();
  TY_ASSIGN_OR_RETURN(source_, OpenSamples(gan_.data, place.data_root));
  QodaGanSetup setup = SetUpQodaGan(options_, place.rank, place.world_size);
  // Of a folder of PNG files only its content tells.
  setup.evaluator.has_labelled_images = spec::HasImages(gan_.data) && source_->class_count() > 1;
  TY_ASSIGN_OR_RETURN(trainer_, train::GanTrainer::Create(setup.trainer));
  TY_ASSIGN_OR_RETURN(evaluator_,
                      train::GanEvaluator::Create(setup.evaluator, trainer_->generator_weights(gan_.scored)));
  TY_ASSIGN_OR_RETURN(const train::GanPlan plan, train::PlanGan(setup.trainer, setup.evaluator));
  memory_plan_ = plan.memory;
  memory_plan_.erase("checkpoint");  // the runner's
  return evaluator_->Prepare(*source_, trainer_->stream());
}

absl::Status QodaGanJob::Initialize() {
  trainer_->Initialize();
  return absl::OkStatus();
}

absl::Status QodaGanJob::Save(ckpt::CheckpointWriter& writer) {
  for (const optim::NamedTensor& tensor : trainer_->state()) writer.AddTensor(tensor.name, tensor.tensor);
  for (const optim::NamedTensor& tensor : trainer_->local_state()) writer.AddLocalTensor(tensor.name, tensor.tensor);
  for (const auto& [name, text] : trainer_->StateTexts()) writer.AddText(name, text);
  writer.AddText("samples_fingerprint", source_->Fingerprint());
  return absl::OkStatus();
}

absl::Status QodaGanJob::Restore(ckpt::CheckpointReader& reader) {
  TY_ASSIGN_OR_RETURN(const std::string fingerprint, reader.Text("samples_fingerprint"));
  if (fingerprint != source_->Fingerprint()) {
    return absl::FailedPreconditionError(absl::StrCat("qoda_gan.data is not what the checkpoint of step ",
                                                      reader.step(), " was made with (fingerprint ",
                                                      source_->Fingerprint(), ", then ", fingerprint, ")"));
  }
  for (const optim::NamedTensor& tensor : trainer_->state()) {
    TY_RETURN_IF_ERROR(reader.ReadTensor(tensor.name, tensor.tensor));
  }
  for (const optim::NamedTensor& tensor : trainer_->local_state()) {
    TY_RETURN_IF_ERROR(reader.ReadLocalTensor(tensor.name, tensor.tensor));
  }
  return trainer_->RestoreState([&](const std::string& name) { return reader.Text(name); });
}

absl::Status QodaGanJob::Connect() {
  if (is_connected_) return absl::OkStatus();
  is_connected_ = true;
  if (context_->place().world_size == 1) return absl::OkStatus();
  return trainer_->Connect(context_->communicator());
}

absl::StatusOr<UnitResult> QodaGanJob::RunUnit() {
  TY_RETURN_IF_ERROR(Connect());
  const absl::Duration begin = RealClock()->Monotonic();
  const std::map<std::string, double> rates = trainer_->rates();
  TY_ASSIGN_OR_RETURN(const train::GanStepResult result, trainer_->Step(*source_));
  const double seconds = absl::ToDoubleSeconds(RealClock()->Monotonic() - begin);
  last_loss_d_ = result.loss_d;
  last_loss_g_ = result.loss_g;

  const JobPlace& place = context_->place();
  UnitResult unit;
  unit.step = step();
  unit.total_steps = gan_.updates;
  unit.done = unit.step >= unit.total_steps;
  unit.metrics.insert(rates.begin(), rates.end());
  unit.metrics["loss_d"] = result.loss_d;
  unit.metrics["loss_g"] = result.loss_g;
  if (gan_.gp_lambda > 0) unit.metrics["gradient_penalty"] = result.gradient_penalty;
  unit.metrics["gradient_norm"] = result.gradient_norm;
  unit.metrics["exchanges"] = result.exchanges;
  unit.metrics["images_per_second"] = static_cast<double>(gan_.global_batch) * result.exchanges / seconds;
  unit.metrics["update_dropped"] = result.updated ? 0 : 1;
  exchange_metrics_.Add(trainer_->exchange(), place.world_size, &unit.metrics);
  if (place.rank == 0 && !result.updated) {
    LogWarning("step ", unit.step, ": loss_d ", result.loss_d, ", loss_g ", result.loss_g, ", gradient norm ",
               result.gradient_norm, ": the update was dropped");
  }
  if (unit.done) return unit;  // the last step's are part of Finish
  if (IsDue(gan_.evaluation_interval)) TY_RETURN_IF_ERROR(Evaluate(&unit.metrics));
  if (IsDue(gan_.sample_interval)) TY_RETURN_IF_ERROR(WriteSamples());
  return unit;
}

absl::Status QodaGanJob::Evaluate(std::map<std::string, double>* values) {
  context_->EnterSection("evaluate");
  absl::StatusOr<std::map<std::string, double>> scores = evaluator_->Evaluate(
      context_->place().world_size == 1 ? nullptr : context_->communicator(),
      [this] { return context_->AgreeToStop(); }, trainer_->stream());
  if (scores.ok()) {
    values->insert(scores->begin(), scores->end());
    // The others wait here for rank 0's scores, and not in the next step, where waiting is a sign of trouble.
    TY_RETURN_IF_ERROR(context_->AgreeToStop().status());
  } else if (!absl::IsCancelled(scores.status())) {
    return scores.status();
  }
  context_->EnterSection("train");
  return absl::OkStatus();
}

absl::Status QodaGanJob::WriteSamples() {
  if (context_->place().rank != 0) return absl::OkStatus();
  TY_RETURN_IF_ERROR(MakeDirs(samples_directory()));
  const std::string path = JoinPath(samples_directory(), absl::StrFormat("step-%08d.png", step()));
  TY_ASSIGN_OR_RETURN(const bool has_written, evaluator_->WriteSamples(path, trainer_->stream()));
  has_samples_ = has_samples_ || has_written;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> QodaGanJob::Export(const std::string& directory) {
  TY_RETURN_IF_ERROR(MakeDirs(directory));
  int64_t bytes = 0;
  // `weights`: flat, of all the net's parameters.
  const auto write = [&](const model::GanNet& net, const TensorView& weights, const char* name) -> absl::Status {
    std::vector<model::SafetensorsTensorSpec> specs;
    std::vector<const void*> data;
    int64_t offset = 0;
    for (const model::GanParameter& parameter : net.parameters()) {
      specs.push_back({parameter.name, kernels::DType::kF32, parameter.shape});
      data.push_back(weights.as<float>() + offset);
      offset += parameter.size();
    }
    TY_ASSIGN_OR_RETURN(const model::SafetensorsFileInfo file,
                        model::WriteSafetensors(JoinPath(directory, name), specs, data, {{"format", "trainyard"}}));
    bytes += static_cast<int64_t>(file.bytes);
    return absl::OkStatus();
  };
  const model::GanNet& generator = trainer_->generator();
  using Which = spec::GeneratorWeights;
  TY_RETURN_IF_ERROR(write(generator, trainer_->generator_weights(gan_.scored), "generator.safetensors"));
  TY_RETURN_IF_ERROR(write(generator, trainer_->generator_weights(Which::kEma), "generator_ema.safetensors"));
  if (gan_.ergodic_average) {
    TY_RETURN_IF_ERROR(write(generator, trainer_->generator_weights(Which::kAverage), "generator_average.safetensors"));
  }
  const model::GanNet& discriminator = trainer_->discriminator();
  TY_RETURN_IF_ERROR(write(discriminator, discriminator.weights(), "discriminator.safetensors"));
  return bytes;
}

absl::StatusOr<v1::JobResult> QodaGanJob::Finish() {
  TY_RETURN_IF_ERROR(Connect());
  std::map<std::string, double> values;
  TY_RETURN_IF_ERROR(Evaluate(&values));
  TY_ASSIGN_OR_RETURN(const bool stops, context_->AgreeToStop());
  if (stops) return absl::CancelledError("asked to stop before the generator was exported");

  v1::JobResult result;
  const JobPlace& place = context_->place();
  if (place.rank != 0) return result;
  context_->EnterSection("export");
  TY_RETURN_IF_ERROR(WriteSamples());
  const std::string directory = JoinPath(place.attempt_dir, "generator");
  TY_ASSIGN_OR_RETURN(const int64_t bytes, Export(directory));
  v1::Artifact& generator = *result.add_artifacts();
  generator.set_name("generator");
  generator.set_path(directory);
  generator.set_bytes(bytes);
  if (has_samples_) {
    v1::Artifact& samples = *result.add_artifacts();
    samples.set_name("samples");
    samples.set_path(samples_directory());
    int64_t sample_bytes = 0;
    TY_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(samples_directory()));
    for (const std::string& name : names) {
      std::error_code error;
      const auto size = std::filesystem::file_size(JoinPath(samples_directory(), name), error);
      if (!error) sample_bytes += static_cast<int64_t>(size);
    }
    samples.set_bytes(sample_bytes);
  }
  values["loss_d"] = last_loss_d_;
  values["loss_g"] = last_loss_g_;
  values["updates"] = static_cast<double>(step());
  values["parameters"] =
      static_cast<double>(trainer_->generator().parameter_count() + trainer_->discriminator().parameter_count());
  for (const auto& [name, value] : values) (*result.mutable_values())[name] = value;
  return result;
}

}  // namespace

std::unique_ptr<Job> MakeQodaGanJob(const spec::JobOptions& options) {
  return std::make_unique<QodaGanJob>(options);
}

}  // namespace trainyard::jobs
