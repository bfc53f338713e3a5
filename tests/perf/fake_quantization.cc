// fake_quantization [--width 1024] [--layers 2] [--batch 4] [--sequence_length 256] [--steps 7] [--threads 1,2]
// [--only NAME,...]
//
// What the quantizers of a linear scheme add to a training step: steps of a network with the scheme and of the same
// network in f32 in turns, in CPU time of all threads, so that other load matters little. The products cost the same in
// both (they are emulated with dequantized values), so the rest is rotation, quantization, masks and the way back.
// Prints medians of milliseconds a step and the share of the scheme's step that is not f32's.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "kernels/core/philox.h"
#include "worker/train/trainer.h"

namespace trainyard {
namespace {

struct Flags {
  int64_t width = 1024;
  int64_t layers = 2;
  int batch = 4;
  int sequence_length = 256;
  int steps = 7;
  std::vector<int> threads = {1, 2};
  std::vector<std::string> only;
};

std::unique_ptr<train::Trainer> MakeTrainer(const Flags& flags, int threads, const spec::LinearOptions& linear) {
  train::TrainerOptions options;
  options.config.vocab_size = 4096;
  options.config.hidden_size = flags.width;
  options.config.intermediate_size = (8 * flags.width / 3 + 255) / 256 * 256;
  options.config.layers = flags.layers;
  options.config.q_heads = options.config.kv_heads = flags.width / 128;
  options.config.head_dim = 128;
  options.config.max_positions = flags.sequence_length;
  options.training.steps = 1'000'000;
  options.training.micro_batch = flags.batch;
  options.training.linear = linear;
  options.sequence_length = flags.sequence_length;
  options.threads = threads;
  absl::StatusOr<std::unique_ptr<train::Trainer>> made = train::Trainer::Create(options);
  TY_CHECK_OK(made);
  (*made)->Initialize();
  model::Network& network = (*made)->network();
  for (const kernels::TensorView& ids : {network.tokens(), network.targets()}) {
    for (int64_t i = 0; i < ids.size(); ++i) {
      const kernels::PhiloxKey key{.purpose = kernels::kRandomTest, .tensor = ids.data() == network.tokens().data()};
      ids.as<int32_t>()[i] = static_cast<int32_t>(kernels::RandomWord(key, static_cast<uint64_t>(i)) % 4096);
    }
  }
  return *std::move(made);
}

double Milliseconds(train::Trainer& trainer) {
  const std::clock_t begin = std::clock();
  TY_CHECK_OK(trainer.StepOnLoadedBatch());
  return 1000.0 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

double Median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Measure(const Flags& flags, int threads, const std::string& name, const spec::LinearOptions& linear) {
  const auto quantized = MakeTrainer(flags, threads, linear);
  const auto dense = MakeTrainer(flags, threads, {});
  Milliseconds(*quantized);
  Milliseconds(*dense);
  std::vector<double> with, without;
  for (int i = 0; i < flags.steps; ++i) {
    with.push_back(Milliseconds(*quantized));
    without.push_back(Milliseconds(*dense));
  }
  const double a = Median(with);
  const double b = Median(without);
  std::cout << absl::StrFormat(
                   "%-28s threads %d: fp32 %7.1f ms, quantized %7.1f ms, %4.1f %% of the step (best %4.1f %%)\n", name,
                   threads, b, a, 100 * (1 - b / a), 100 * (1 - without.front() / with.front()))
            << std::flush;
}

void MeasureAll(const Flags& flags) {
  using Grid = spec::LinearQuest::Grid;
  using Recipe = spec::LinearQuartet2::Recipe;
  const std::vector<std::pair<std::string, spec::LinearOptions>> all = {
      {"quest W4A4", {spec::LinearQuest{}, {}}},
      {"quest FP4", {spec::LinearQuest{.weight_grid = Grid::kFp4, .activation_grid = Grid::kFp4}, {}}},
      {"quest 2:4 INT4", {spec::LinearQuest{.weight_grid = Grid::kInt24}, {}}},
      {"fp8", {spec::LinearFp8{}, {}}},
      {"quartet", {spec::LinearQuartet{}, {}}},
      {"quartet2", {spec::LinearQuartet2{}, {}}},
      {"nvidia", {spec::LinearQuartet2{.recipe = Recipe::kNvidia, .four_over_six = false}, {}}},
      {"tetrajet_v2", {spec::LinearQuartet2{.recipe = Recipe::kTetraJetV2, .four_over_six = false}, {}}}};
  std::cout << absl::StrFormat("width %d, %d layers, %d x %d tokens a step, medians of %d steps\n", flags.width,
                               flags.layers, flags.batch, flags.sequence_length, flags.steps);
  for (const int threads : flags.threads) {
    for (const auto& [name, linear] : all) {
      const bool is_wanted =
          flags.only.empty() || std::find(flags.only.begin(), flags.only.end(), name) != flags.only.end();
      if (is_wanted) Measure(flags, threads, name, linear);
    }
  }
}

}  // namespace
}  // namespace trainyard

int main(int argc, char** argv) {
  trainyard::Flags flags;
  CLI::App app("What fake quantization adds to a training step");
  app.add_option("--width", flags.width, "Hidden size, a multiple of 128")->capture_default_str();
  app.add_option("--layers", flags.layers)->capture_default_str();
  app.add_option("--batch", flags.batch)->capture_default_str();
  app.add_option("--sequence_length", flags.sequence_length)->capture_default_str();
  app.add_option("--steps", flags.steps, "Steps measured, after one that is not")->capture_default_str();
  app.add_option("--threads", flags.threads, "Thread counts")->delimiter(',');
  app.add_option("--only", flags.only, "Names of the rows to measure")->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  trainyard::MeasureAll(flags);
  return 0;
}
