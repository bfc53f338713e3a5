// sparsity_runs --data DATASET [--first_seed 1] [--seeds 3] [--dense_steps 600] [--steps 600] [--sparsity 0.5,0.7,0.9]
//
// Perplexity of a small Llama on real text, pruned in several ways (shared/methods/elsa.md, check 7): one line a seed
// and sparsity, then the means over the seeds. From one dense model each:
//
//   magnitude, wanda, sparsegpt    one shot, no training
//   magnitude+tuned                one shot, then --steps steps of AdamW with the mask held
//   elsa                           --steps steps of the Elsa optimizer: equal tokens, projected at the end
//   dense+tuned                    the dense model trained on by as many steps: what the tokens alone give
//
// Everything on one thread and a function of the seed.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "worker/data/loader.h"
#include "worker/prune/model_pruner.h"
#include "worker/train/trainer.h"

namespace trainyard {
namespace {

struct Flags {
  std::string data;
  int first_seed = 1;
  int seeds = 3;
  int64_t dense_steps = 600;
  int64_t steps = 600;
  int64_t batches = 64;  // of the validation split
  double learning_rate = 1e-3;
  double lambda = 0.01;
  std::string lambda_schedule = "cosine";
  int interval = 8;
  std::string projection = "fisher";
  std::vector<double> sparsities = {0.5, 0.7, 0.9};
};

constexpr int64_t kSequence = 128;
constexpr int32_t kMicroBatch = 8;
constexpr int64_t kCalibrationSequences = 128;

absl::StatusOr<data::Loader> OpenData(const Flags& flags, uint64_t seed) {
  data::LoaderOptions options;
  options.directory = flags.data;
  options.sequence_length = kSequence;
  options.seed = seed;
  options.vocab_size = 1 << 20;  // whatever the data set has
  return data::Loader::Open(options);
}

absl::StatusOr<std::unique_ptr<train::Trainer>> MakeTrainer(const data::Loader& loader, uint64_t seed, int64_t steps,
                                                            double final_fraction, spec::OptimizerOptions optimizer) {
  train::TrainerOptions options;
  options.config.vocab_size = loader.dataset().vocab_size;
  options.config.hidden_size = 64;
  options.config.intermediate_size = 192;
  options.config.layers = 2;
  options.config.q_heads = options.config.kv_heads = 4;
  options.config.head_dim = 16;
  options.sequence_length = kSequence;
  options.seed = seed;
  options.training.steps = steps;
  options.training.micro_batch = kMicroBatch;
  options.training.optimizer = std::move(optimizer);
  options.training.schedule = {.shape = spec::ScheduleShape::kLinear, .final_fraction = final_fraction};
  TY_ASSIGN_OR_RETURN(std::unique_ptr<train::Trainer> trainer, train::Trainer::Create(options));
  trainer->Initialize();
  return trainer;
}

void CopyWeights(const train::Trainer& from, train::Trainer* to) {
  for (size_t i = 0; i < from.leading_weights().size(); ++i) {
    const kernels::TensorView &x = from.leading_weights()[i], &y = to->leading_weights()[i];
    std::memcpy(y.data(), x.data(), static_cast<size_t>(x.bytes()));
  }
}

// After each step what `zeros` marks, parameter by parameter, is 0 again; empty: nothing.
absl::Status Train(train::Trainer* trainer, data::Loader* loader, const std::vector<std::vector<uint8_t>>& zeros) {
  for (int64_t step = 0; step < trainer->options().training.steps; ++step) {
    TY_RETURN_IF_ERROR(trainer->Step(*loader).status());
    for (size_t i = 0; i < zeros.size(); ++i) {
      float* const x = trainer->leading_weights()[i].as<float>();
      for (size_t j = 0; j < zeros[i].size(); ++j) x[j] = zeros[i][j] != 0 ? 0.0f : x[j];
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<double> Perplexity(const Flags& flags, train::Trainer* trainer, data::Loader* loader) {
  TY_ASSIGN_OR_RETURN(const double loss, trainer->Evaluate(*loader, flags.batches, [] { return false; }));
  return std::exp(loss);
}

spec::AdamWOptions Tuning(const Flags& flags) {
  spec::AdamWOptions adamw;
  adamw.learning_rate = flags.learning_rate;
  adamw.weight_decay = 0;
  return adamw;
}

absl::StatusOr<spec::ElsaOptions> Elsa(const Flags& flags, double sparsity) {
  spec::ElsaOptions elsa;
  elsa.learning_rate = flags.learning_rate;
  elsa.sparsity = sparsity;
  elsa.interval = flags.interval;
  elsa.lambda = flags.lambda;
  if (flags.lambda_schedule == "cosine") {
    elsa.lambda_schedule = spec::ElsaOptions::Schedule::kCosine;
  } else if (flags.lambda_schedule != "constant") {
    return absl::InvalidArgumentError("--lambda_schedule: cosine or constant");
  }
  if (flags.projection == "magnitude") {
    elsa.projection = spec::ElsaOptions::Projection::kMagnitude;
  } else if (flags.projection != "fisher") {
    return absl::InvalidArgumentError("--projection: fisher or magnitude");
  }
  return elsa;
}

using Figures = std::map<std::string, double>;

// One sparsity from one dense model. `first` is where every run after the dense one begins in the data.
absl::Status Measure(const Flags& flags, const train::Trainer& dense, uint64_t seed, double sparsity,
                     data::Loader* loader, Figures* figures) {
  const data::LoaderPosition first = loader->position();
  const auto load = [&](const kernels::TensorView& tokens, const kernels::TensorView& targets) {
    return loader->Next(tokens, targets);
  };
  TY_ASSIGN_OR_RETURN(const spec::ElsaOptions elsa, Elsa(flags, sparsity));
  TY_ASSIGN_OR_RETURN(const auto sparse, MakeTrainer(*loader, seed, flags.steps, 0, elsa));
  CopyWeights(dense, sparse.get());
  TY_RETURN_IF_ERROR(Train(sparse.get(), loader, {}));
  sparse->Finalize();
  TY_RETURN_IF_ERROR(loader->Restore(first));
  TY_ASSIGN_OR_RETURN((*figures)["elsa"], Perplexity(flags, sparse.get(), loader));
  const std::pair<const char*, prune::Method> methods[] = {{"magnitude", prune::Method::kMagnitude},
                                                           {"wanda", prune::Method::kWanda},
                                                           {"sparsegpt", prune::Method::kSparseGpt}};
  for (const auto& [name, method] : methods) {
    TY_ASSIGN_OR_RETURN(const auto trainer, MakeTrainer(*loader, seed, flags.steps, 0, Tuning(flags)));
    CopyWeights(dense, trainer.get());
    const prune::Calibration calibration{
        .sequences = kCalibrationSequences, .sequence_length = kSequence, .load = load};
    TY_RETURN_IF_ERROR(PruneModel(dense.options().config, trainer->weights(), {.method = method, .sparsity = sparsity},
                                  calibration, trainer->stream())
                           .status());
    TY_RETURN_IF_ERROR(loader->Restore(first));
    TY_ASSIGN_OR_RETURN((*figures)[name], Perplexity(flags, trainer.get(), loader));
    if (method != prune::Method::kMagnitude) continue;
    std::vector<std::vector<uint8_t>> zeros;
    for (size_t i = 0; i < trainer->parameters().size(); ++i) {
      zeros.emplace_back();
      const model::Parameter& parameter = trainer->parameters()[i];
      if (!parameter.is_matrix() || parameter.layer == 0 || parameter.layer > dense.options().config.layers) continue;
      const kernels::TensorView& x = trainer->leading_weights()[i];
      for (int64_t j = 0; j < x.size(); ++j) zeros.back().push_back(x.as<float>()[j] == 0 ? 1 : 0);
    }
    TY_RETURN_IF_ERROR(Train(trainer.get(), loader, zeros));
    TY_RETURN_IF_ERROR(loader->Restore(first));
    TY_ASSIGN_OR_RETURN((*figures)["magnitude+tuned"], Perplexity(flags, trainer.get(), loader));
  }
  return absl::OkStatus();
}

void Print(const std::string& title, const Figures& figures) {
  std::cout << title;
  for (const auto& [name, value] : figures) std::cout << absl::StrFormat("  %s %.3f", name, value);
  std::cout << std::endl;  // at once: runs are long
}

absl::Status Run(const Flags& flags) {
  std::map<double, Figures> means;
  for (int seed = flags.first_seed; seed < flags.first_seed + flags.seeds; ++seed) {
    TY_ASSIGN_OR_RETURN(data::Loader loader, OpenData(flags, static_cast<uint64_t>(seed)));
    spec::AdamWOptions adamw;
    adamw.learning_rate = 3e-3;
    TY_ASSIGN_OR_RETURN(const auto dense,
                        MakeTrainer(loader, static_cast<uint64_t>(seed), flags.dense_steps, 0.1, adamw));
    TY_RETURN_IF_ERROR(Train(dense.get(), &loader, {}));
    Figures of_dense;
    TY_ASSIGN_OR_RETURN(of_dense["dense"], Perplexity(flags, dense.get(), &loader));
    const data::LoaderPosition first = loader.position();
    TY_ASSIGN_OR_RETURN(const auto tuned,
                        MakeTrainer(loader, static_cast<uint64_t>(seed), flags.steps, 0, Tuning(flags)));
    CopyWeights(*dense, tuned.get());
    TY_RETURN_IF_ERROR(Train(tuned.get(), &loader, {}));
    TY_RETURN_IF_ERROR(loader.Restore(first));
    TY_ASSIGN_OR_RETURN(of_dense["dense+tuned"], Perplexity(flags, tuned.get(), &loader));
    Print(absl::StrFormat("seed %d", seed), of_dense);
    for (const double sparsity : flags.sparsities) {
      Figures figures;
      TY_RETURN_IF_ERROR(Measure(flags, *dense, static_cast<uint64_t>(seed), sparsity, &loader, &figures));
      Print(absl::StrFormat("seed %d  sparsity %.2f", seed, sparsity), figures);
      for (const auto& [name, value] : figures) means[sparsity][name] += value / flags.seeds;
    }
  }
  for (const auto& [sparsity, figures] : means) Print(absl::StrFormat("mean    sparsity %.2f", sparsity), figures);
  return absl::OkStatus();
}

}  // namespace
}  // namespace trainyard

int main(int argc, char** argv) {
  trainyard::Flags flags;
  CLI::App app("Perplexity of a small Llama, pruned in several ways", "sparsity_runs");
  app.add_option("--data", flags.data, "Data set folder made by `trainyard data tokenize`")->required();
  app.add_option("--first_seed", flags.first_seed)->capture_default_str();
  app.add_option("--seeds", flags.seeds, "Dense models")->capture_default_str();
  app.add_option("--dense_steps", flags.dense_steps)->capture_default_str();
  app.add_option("--steps", flags.steps, "Steps of the runs that train on")->capture_default_str();
  app.add_option("--batches", flags.batches, "Of the validation split")->capture_default_str();
  app.add_option("--learning_rate", flags.learning_rate, "Of the runs that train on")->capture_default_str();
  app.add_option("--lambda", flags.lambda)->capture_default_str();
  app.add_option("--lambda_schedule", flags.lambda_schedule, "cosine or constant")->capture_default_str();
  app.add_option("--interval", flags.interval)->capture_default_str();
  app.add_option("--projection", flags.projection, "fisher or magnitude")->capture_default_str();
  app.add_option("--sparsity", flags.sparsities)->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = trainyard::Run(flags);
  if (!status.ok()) std::cerr << "error: " << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
