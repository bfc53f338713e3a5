// low_rank_runs --text FILE [--steps 300] [--seeds 3] [--rates 0.001,0.003] [--hidden 128] [--only NAME,...]
//
// The relations of dct-lowrank.md section 5 on a small Llama over real text, byte by byte: AdamW, DCT-AdamW at several
// ranks with and without error feedback, against random vectors that are chosen once, and Trion at several ranks up to
// full (Muon). Every optimizer gets the same rates, seeds and batches. Prints one line an optimizer: the validation
// loss of the best rate, mean over seeds with the standard deviation, every seed's, and the optimizer's state in MiB.
// The last tenth of the text is for validation.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/file.h"
#include "worker/data/loader.h"
#include "worker/train/testing/tiny_dataset.h"
#include "worker/train/trainer.h"

namespace trainyard::train {
namespace {

struct Flags {
  std::string text;
  int steps = 300;
  int seeds = 3;
  std::vector<double> rates = {0.001, 0.003, 0.01};
  int hidden = 128;
  int threads = 1;
  std::vector<std::string> only;
};

struct Candidate {
  std::string name;
  spec::OptimizerOptions optimizer;
};

using ErrorFeedback = spec::DctAdamWOptions::ErrorFeedback;

spec::DctAdamWOptions DctAdamW(int rank) {
  spec::DctAdamWOptions options;
  options.subspace.rank = rank;
  options.subspace.full_rank_min_dim = 257;  // the embedding and the head take AdamW
  options.beta2 = 0.95;
  return options;
}

spec::TrionOptions Trion(int rank) {
  spec::TrionOptions options;
  options.subspace.rank = rank;
  options.subspace.full_rank_min_dim = 257;
  return options;
}

std::vector<Candidate> Candidates(int hidden) {
  std::vector<Candidate> result;
  spec::AdamWOptions adamw;
  adamw.weight_decay = 0;
  result.push_back({"adamw", adamw});
  for (const int rank : {64, 32, 16}) {
    result.push_back({absl::StrFormat("dct_adamw_r%d", rank), DctAdamW(rank)});
  }
  for (const auto& [name, feedback] :
       {std::pair{"none", ErrorFeedback::kNone}, {"int4", ErrorFeedback::kInt4}, {"full", ErrorFeedback::kFull}}) {
    spec::DctAdamWOptions options = DctAdamW(16);
    options.error_feedback = feedback;
    result.push_back({absl::StrFormat("dct_adamw_r16_feedback_%s", name), options});
  }
  spec::DctAdamWOptions gap = DctAdamW(16);
  gap.update_gap = 20;
  result.push_back({"dct_adamw_r16_gap20", gap});
  spec::DctAdamWOptions unrotated = DctAdamW(16);
  unrotated.rotate = false;
  result.push_back({"dct_adamw_r16_unrotated", unrotated});
  spec::DctAdamWOptions fixed = DctAdamW(16);
  fixed.subspace.basis = spec::SubspaceOptions::Basis::kRandom;
  fixed.update_gap = 1'000'000;
  result.push_back({"fixed_random_r16", fixed});
  fixed.error_feedback = ErrorFeedback::kNone;
  result.push_back({"fixed_random_r16_feedback_none", fixed});
  for (const int rank : {hidden, 64, 16}) {
    result.push_back({absl::StrFormat(rank == hidden ? "muon_r%d" : "trion_r%d", rank), Trion(rank)});
  }
  return result;
}

struct Outcome {
  double loss = 0;
  double state_mib = 0;  // moments, indices, feedback and bases
};

Outcome RunOne(const Flags& flags, const testing::TinyDataset& dataset, const Candidate& candidate, double rate,
               uint64_t seed) {
  TrainerOptions options;
  options.config.vocab_size = 257;
  options.config.hidden_size = flags.hidden;
  options.config.intermediate_size = 2 * flags.hidden;
  options.config.layers = 2;
  options.config.q_heads = 4;
  options.config.kv_heads = 4;
  options.config.head_dim = flags.hidden / 4;
  options.sequence_length = 64;
  options.seed = seed;
  options.threads = flags.threads;
  options.training.steps = flags.steps;
  options.training.micro_batch = 8;
  options.training.schedule.warmup_steps = flags.steps / 10;
  options.training.optimizer = candidate.optimizer;
  std::visit([&](auto& kind) { kind.learning_rate = rate; }, options.training.optimizer);
  if (auto* trion = std::get_if<spec::TrionOptions>(&options.training.optimizer)) trion->adam_learning_rate = 0.003;

  data::LoaderOptions loading;
  loading.directory = dataset.path();
  loading.sequence_length = static_cast<int>(options.sequence_length);
  loading.seed = seed;
  loading.vocab_size = 257;
  absl::StatusOr<data::Loader> loader = data::Loader::Open(loading);
  TY_CHECK_OK(loader);
  absl::StatusOr<std::unique_ptr<Trainer>> trainer = Trainer::Create(options);
  TY_CHECK_OK(trainer);
  (*trainer)->Initialize();
  Outcome outcome;
  for (const char* purpose : {"moments", "indices", "error_feedback", "basis"}) {
    const auto found = (*trainer)->memory_plan().find(purpose);
    if (found != (*trainer)->memory_plan().end()) outcome.state_mib += static_cast<double>(found->second) / (1 << 20);
  }
  for (int step = 0; step < flags.steps; ++step) {
    if (!(*trainer)->Step(*loader).ok()) {  // diverged
      outcome.loss = std::numeric_limits<double>::infinity();
      return outcome;
    }
  }
  const absl::StatusOr<double> loss = (*trainer)->Evaluate(*loader, 40, [] { return absl::StatusOr<bool>(false); });
  TY_CHECK_OK(loss);
  outcome.loss = *loss;
  return outcome;
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

void Report(const Flags& flags, const testing::TinyDataset& dataset, const Candidate& candidate) {
  double best_rate = 0, state_mib = 0;
  std::vector<double> best;
  for (const double rate : flags.rates) {
    std::vector<double> losses;
    for (int seed = 1; seed <= flags.seeds; ++seed) {
      const Outcome outcome = RunOne(flags, dataset, candidate, rate, static_cast<uint64_t>(seed));
      losses.push_back(outcome.loss);
      state_mib = outcome.state_mib;
    }
    if (best.empty() || Mean(losses) < Mean(best)) {
      best = losses;
      best_rate = rate;
    }
  }
  const double mean = Mean(best);
  double squares = 0;
  for (const double loss : best) squares += (loss - mean) * (loss - mean);
  std::cout << absl::StrFormat("| %-31s | %6.4f +- %6.4f | %6.4f | %5.2f |", candidate.name, mean,
                               std::sqrt(squares / std::max<double>(1, static_cast<double>(best.size()) - 1)),
                               best_rate, state_mib);
  for (const double loss : best) std::cout << absl::StrFormat(" %6.4f", loss);
  std::cout << std::endl;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Low-rank optimizers against each other on a small model");
  app.add_option("--text", flags.text)->required();
  app.add_option("--steps", flags.steps);
  app.add_option("--seeds", flags.seeds);
  app.add_option("--rates", flags.rates)->delimiter(',');
  app.add_option("--hidden", flags.hidden);
  app.add_option("--threads", flags.threads);
  app.add_option("--only", flags.only)->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  const absl::StatusOr<std::string> text = ReadFile(flags.text);
  TY_CHECK_OK(text);
  const size_t cut = text->size() / 10 * 9;
  const testing::TinyDataset dataset(text->substr(0, cut), text->substr(cut));
  std::cout << "| optimizer | validation loss | rate | state MiB | seeds" << std::endl;
  for (const Candidate& candidate : Candidates(flags.hidden)) {
    const bool is_wanted =
        flags.only.empty() || std::find(flags.only.begin(), flags.only.end(), candidate.name) != flags.only.end();
    if (is_wanted) Report(flags, dataset, candidate);
  }
  return 0;
}

}  // namespace
}  // namespace trainyard::train

int main(int argc, char** argv) {
  return trainyard::train::Main(argc, argv);
}
