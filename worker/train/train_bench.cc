// train_bench [--preset llama-25m] [--sequence_length 512] [--batch 4] [--steps 8] [--threads 1,2] [--dtype fp32]
// [--json]
//
// Training speed beside the f32 GEMM rate (flops.h) of the same threads in the same run, a GEMM measurement before each
// step, so that other load and changing clocks meet both alike. Prints one line a thread count: medians of GEMM GFLOP/s
// and of training GFLOP/s by the model's FLOPs, and their ratio; beside them the best of each.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/clock.h"
#include "kernels/core/philox.h"
#include "proto/spec/model_presets.h"
#include "worker/model/config.h"
#include "worker/model/network.h"
#include "worker/train/flops.h"
#include "worker/train/trainer.h"

namespace trainyard::train {
namespace {

struct Flags {
  std::string preset = "llama-25m";
  int sequence_length = 512;
  int batch = 4;
  int steps = 8;
  std::vector<int> threads = {1, 2};
  std::string dtype = "fp32";
  bool recompute = false;
  bool json = false;
};

TrainerOptions OptionsOf(const Flags& flags, int threads) {
  const std::optional<spec::LlamaShape> shape = spec::FindModelPreset(flags.preset);
  TY_CHECK(shape.has_value());
  TrainerOptions options;
  options.config.vocab_size = shape->vocab_size;
  options.config.hidden_size = shape->hidden_size;
  options.config.intermediate_size = shape->intermediate_size;
  options.config.layers = shape->num_hidden_layers;
  options.config.q_heads = shape->num_attention_heads;
  options.config.kv_heads = shape->num_key_value_heads;
  options.config.head_dim = shape->head_dim;
  options.config.qkv_bias = shape->attention_bias;
  options.config.tied_head = shape->tie_word_embeddings;
  options.config.max_positions = std::max(shape->max_position_embeddings, flags.sequence_length);
  options.dtype = flags.dtype == "bf16" ? kernels::DType::kBF16 : kernels::DType::kF32;
  options.training.steps = 1'000'000;
  options.training.micro_batch = flags.batch;
  options.training.recompute = flags.recompute ? spec::Recompute::kBlock : spec::Recompute::kNone;
  options.sequence_length = flags.sequence_length;
  options.threads = threads;
  return options;
}

// What the same network is called elsewhere.
nlohmann::json ShapeJson(const model::ModelConfig& config) {
  nlohmann::json shape = nlohmann::json::parse(model::ToConfigJson(config, "float32"));
  nlohmann::json kept;
  for (const char* name : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                           "num_key_value_heads", "head_dim", "tie_word_embeddings", "max_position_embeddings"}) {
    kept[name] = shape.at(name);
  }
  return kept;
}

void Measure(const Flags& flags, int threads) {
  const TrainerOptions options = OptionsOf(flags, threads);
  absl::StatusOr<std::unique_ptr<Trainer>> made = Trainer::Create(options);
  TY_CHECK_OK(made);
  Trainer& trainer = **made;
  trainer.Initialize();
  // Random tokens: data takes no time here, and speed does not depend on what they say.
  model::Network& network = trainer.network();
  for (const kernels::TensorView& ids : {network.tokens(), network.targets()}) {
    for (int64_t i = 0; i < ids.size(); ++i) {
      const kernels::PhiloxKey key{.purpose = kernels::kRandomTest, .tensor = ids.data() == network.tokens().data()};
      ids.as<int32_t>()[i] =
          static_cast<int32_t>(kernels::RandomWord(key, static_cast<uint64_t>(i)) % options.config.vocab_size);
    }
  }
  const auto step = [&] { TY_CHECK_OK(trainer.StepOnLoadedBatch()); };
  step();
  std::vector<double> seconds, gemm_rates;
  for (int i = 0; i < flags.steps; ++i) {
    gemm_rates.push_back(MeasureGemmRate(trainer.stream()));
    const absl::Duration begin = RealClock()->Monotonic();
    step();
    seconds.push_back(absl::ToDoubleSeconds(RealClock()->Monotonic() - begin));
  }
  std::sort(gemm_rates.begin(), gemm_rates.end());
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const auto tokens = static_cast<double>(options.training.micro_batch * options.sequence_length);
  const double flops = FlopsPerToken(options.config, options.sequence_length) * tokens;
  const double gemm = gemm_rates[gemm_rates.size() / 2];
  if (flags.json) {
    nlohmann::ordered_json line;
    line["threads"] = threads;
    line["tokens_per_second"] = tokens / median;
    line["training_flops"] = flops / median;
    line["gemm_flops"] = gemm;
    line["ratio"] = flops / median / gemm;
    line["shape"] = ShapeJson(options.config);
    std::cout << line.dump() << std::endl;
    return;
  }
  std::cout << absl::StrFormat(
                   "%s %s T=%d B=%d threads=%d: GEMM %.1f GFLOP/s, training %.1f GFLOP/s, %.0f tokens/s, ratio %.3f "
                   "(medians of %d steps; best: GEMM %.1f, training %.1f, ratio %.3f)\n",
                   flags.preset, flags.dtype, flags.sequence_length, flags.batch, threads, gemm * 1e-9,
                   flops / median * 1e-9, tokens / median, flops / median / gemm, flags.steps, gemm_rates.back() * 1e-9,
                   flops / seconds.front() * 1e-9, flops / seconds.front() / gemm_rates.back())
            << std::flush;
}

}  // namespace
}  // namespace trainyard::train

int main(int argc, char** argv) {
  trainyard::train::Flags flags;
  CLI::App app("Training speed beside the GEMM rate of the same run");
  app.add_option("--preset", flags.preset, "A name of proto/spec/model_presets")->capture_default_str();
  app.add_option("--sequence_length", flags.sequence_length)->capture_default_str();
  app.add_option("--batch", flags.batch)->capture_default_str();
  app.add_option("--steps", flags.steps, "Steps measured, after one that is not")->capture_default_str();
  app.add_option("--threads", flags.threads, "Thread counts")->delimiter(',');
  app.add_option("--dtype", flags.dtype, "fp32 or bf16")->capture_default_str();
  app.add_flag("--json", flags.json, "One JSON line a thread count");
  app.add_flag("--recompute", flags.recompute, "Recompute blocks in the backward");
  CLI11_PARSE(app, argc, argv);
  for (const int threads : flags.threads) trainyard::train::Measure(flags, threads);
  return 0;
}
