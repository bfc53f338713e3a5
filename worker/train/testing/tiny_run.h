// A small Llama on the tiny text, with its loader: one rank's training, for tests.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "base/check.h"
#include "worker/data/loader.h"
#include "worker/train/testing/tiny_dataset.h"
#include "worker/train/trainer.h"

namespace trainyard::train::testing {

inline TrainerOptions TinyTrainerOptions(const spec::OptimizerOptions& optimizer) {
  TrainerOptions options;
  options.config.vocab_size = 257;
  options.config.hidden_size = 32;
  options.config.intermediate_size = 64;
  options.config.layers = 2;
  options.config.q_heads = 4;
  options.config.kv_heads = 2;
  options.config.head_dim = 8;
  options.sequence_length = 32;
  options.seed = 11;
  options.training.steps = 20;
  options.training.micro_batch = 2;
  options.training.optimizer = optimizer;
  options.training.schedule.warmup_steps = 3;
  return options;
}

struct TinyTraining {
  TinyTraining() = default;  // of no use until it is assigned to
  TinyTraining(const TinyDataset& dataset, const TrainerOptions& options, int rank = 0, int ranks = 1) {
    data::LoaderOptions loading;
    loading.directory = dataset.path();
    loading.sequence_length = static_cast<int>(options.sequence_length);
    loading.rank = rank;
    loading.world_size = ranks;
    loading.seed = options.seed;
    loading.vocab_size = options.config.vocab_size;
    absl::StatusOr<data::Loader> opened = data::Loader::Open(loading);
    TY_CHECK_OK(opened);
    loader = std::make_unique<data::Loader>(*std::move(opened));
    absl::StatusOr<std::unique_ptr<Trainer>> created = Trainer::Create(options);
    TY_CHECK_OK(created);
    trainer = *std::move(created);
    trainer->Initialize();
  }

  std::vector<StepResult> Results(int steps) const {
    std::vector<StepResult> results;
    for (int i = 0; i < steps; ++i) {
      absl::StatusOr<StepResult> result = trainer->Step(*loader);
      TY_CHECK_OK(result);
      results.push_back(*result);
    }
    return results;
  }

  // The losses of that many steps.
  std::vector<double> Steps(int count) const {
    std::vector<double> losses;
    for (const StepResult& result : Results(count)) losses.push_back(result.loss);
    return losses;
  }

  // Takes over what a checkpoint of `other` would hold.
  void RestoreFrom(const TinyTraining& other) const {
    TY_CHECK_EQ(trainer->state().size(), other.trainer->state().size());
    for (size_t i = 0; i < trainer->state().size(); ++i) {
      const kernels::TensorView& from = other.trainer->state()[i].tensor;
      TY_CHECK(trainer->state()[i].name == other.trainer->state()[i].name);
      std::memcpy(trainer->state()[i].tensor.data(), from.data(), static_cast<size_t>(from.bytes()));
    }
    TY_CHECK_OK(trainer->RestoreState(other.trainer->StateText()));
    TY_CHECK_OK(loader->Restore(other.loader->position()));
  }

  // Of the state, in which the leading weights are.
  std::vector<uint8_t> StateBytes() const {
    std::vector<uint8_t> bytes;
    for (const optim::NamedTensor& tensor : trainer->state()) {
      const uint8_t* begin = static_cast<const uint8_t*>(tensor.tensor.data());
      bytes.insert(bytes.end(), begin, begin + tensor.tensor.bytes());
    }
    return bytes;
  }

  std::unique_ptr<data::Loader> loader;
  std::unique_ptr<Trainer> trainer;
};

}  // namespace trainyard::train::testing
