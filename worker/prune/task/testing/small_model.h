// A small Llama that has learned a little of a made-up English, as a model folder, with its data set: what there must
// be before anything can be pruned. For tests.
#pragma once

#include <string>

#include "base/check.h"
#include "base/testing/temp_dir.h"
#include "kernels/core/philox.h"
#include "worker/model/hugging_face.h"
#include "worker/train/testing/tiny_dataset.h"
#include "worker/train/testing/tiny_run.h"

namespace trainyard::prune::testing {

// Sentences of a few words each, a function of the seed.
inline std::string MadeUpText(uint64_t seed, int sentences) {
  static constexpr const char* kAdjectives[] = {"old", "long", "red", "slow", "quiet", "heavy", "bright", "northern"};
  static constexpr const char* kNouns[] = {"train", "signal", "engine", "wagon", "bridge", "driver", "yard", "river"};
  static constexpr const char* kVerbs[] = {"passes", "follows", "hears", "leaves", "meets", "carries", "sees", "holds"};
  std::string text;
  uint64_t next = 0;
  const auto choose = [&](const char* const* words) {
    return std::string(words[kernels::RandomWord({.seed = seed, .purpose = kernels::kRandomTest}, next++) % 8]);
  };
  for (int i = 0; i < sentences; ++i) {
    text += "The " + choose(kAdjectives) + " " + choose(kNouns) + " " + choose(kVerbs) + " the " + choose(kAdjectives) +
            " " + choose(kNouns) + ". ";
  }
  return text;
}

class SmallModel {
 public:
  explicit SmallModel(int64_t kv_heads = 2, int64_t layers = 4, int steps = 250)
      : data_(MadeUpText(1, 1200), MadeUpText(2, 60)) {
    spec::AdamWOptions adamw;
    adamw.learning_rate = 3e-3;
    train::TrainerOptions options = train::testing::TinyTrainerOptions(adamw);
    options.config.hidden_size = 64;
    options.config.intermediate_size = 128;
    options.config.layers = layers;
    options.config.q_heads = 4;
    options.config.kv_heads = kv_heads;
    options.config.head_dim = 16;
    options.training.steps = steps;
    options.training.micro_batch = 8;
    train::testing::TinyTraining training(data_, options);
    last_loss_ = training.Steps(steps).back();
    TY_CHECK_OK(model::ExportModel(options.config, training.trainer->weights().all,
                                   {.directory = dir_.path(), .tokenizer_source = data_.path()}));
    config_ = options.config;
  }

  const std::string& path() const { return dir_.path(); }
  const std::string& data_path() const { return data_.path(); }
  const model::ModelConfig& config() const { return config_; }
  double last_loss() const { return last_loss_; }

 private:
  train::testing::TinyDataset data_;
  TempDir dir_;
  model::ModelConfig config_;
  double last_loss_ = 0;
};

}  // namespace trainyard::prune::testing
