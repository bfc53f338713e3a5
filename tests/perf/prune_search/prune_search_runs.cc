// prune_search_runs --data DATASET [--model FOLDER] [--seeds 3] [--dense_steps 600] [--generations 30] ...
//
// Prunes a small Llama by prune_search, with and without training-aware selection, in this process and without a
// service, and prints the KL divergence from the dense model and the perplexity on the validation split: of the
// winners, of the uniform genome, SPDY, magnitude and depth at the same number of parameters, before and after the same
// short fine-tuning. Then the tokens a second of the dense and of the pruned models, forward and forward with backward.
//
// Without --model each seed trains its dense model first.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/testing/temp_dir.h"
#include "nlohmann/json.hpp"
#include "worker/jobs/testing/job_rank.h"
#include "worker/jobs/testing/local_trials.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/hugging_face.h"
#include "worker/model/network.h"
#include "worker/prune/task/candidate.h"

namespace trainyard {
namespace {

struct Flags {
  std::string data, model, keep;
  int seeds = 3, dense_steps = 600, generations = 30, offspring = 12, levels = 5, target_level = 2;
  int layers = 4, width = 64, heads = 4, kv_heads = 2, intermediate = 192, sequence = 128, parallel = 2, batches = 16;
  int64_t train_tokens = 8000;
  double learning_rate = 3e-4;
};

struct Run {
  v1::JobResult result;
  double seconds = 0;
};

absl::StatusOr<Run> RunJob(const v1::JobSpec& spec, const std::string& directory, jobs::Trials* trials) {
  TY_ASSIGN_OR_RETURN(const spec::JobOptions options, spec::ParseJob(spec));
  jobs::JobPlace place;
  place.attempt_dir = JoinPath(directory, "attempt");
  place.data_root = "/";
  place.spec = spec;
  TY_RETURN_IF_ERROR(MakeDirs(place.attempt_dir));
  jobs::FakeContext context(place, nullptr);
  context.offered_trials = trials;
  const std::unique_ptr<jobs::Job> job = jobs::MakeJob(options);
  const absl::Duration begin = RealClock()->Monotonic();
  TY_RETURN_IF_ERROR(job->Prepare(context));
  TY_RETURN_IF_ERROR(job->Initialize());
  for (bool done = false; !done;) {
    TY_ASSIGN_OR_RETURN(const jobs::UnitResult unit, job->RunUnit());
    done = unit.done;
    if (unit.metrics.count("best_fitness") > 0) {
      std::fprintf(stderr, "  generation %.0f: %.5f\n", unit.metrics.at("generation"), unit.metrics.at("best_fitness"));
    }
  }
  Run run;
  TY_ASSIGN_OR_RETURN(run.result, job->Finish());
  run.seconds = absl::ToDoubleSeconds(RealClock()->Monotonic() - begin);
  return run;
}

v1::JobSpec DenseSpec(const Flags& flags, int seed) {
  v1::JobSpec spec;
  spec.set_seed(static_cast<uint64_t>(seed));
  spec.mutable_pretrain();
  v1::LlamaShape& shape = *spec.mutable_model()->mutable_shape();
  shape.set_vocab_size(257);
  shape.set_hidden_size(flags.width);
  shape.set_intermediate_size(flags.intermediate);
  shape.set_num_hidden_layers(flags.layers);
  shape.set_num_attention_heads(flags.heads);
  shape.set_num_key_value_heads(flags.kv_heads);
  shape.set_head_dim(flags.width / flags.heads);
  spec.mutable_data()->set_path(flags.data);
  spec.mutable_data()->set_sequence_length(flags.sequence);
  spec.mutable_training()->set_steps(flags.dense_steps);
  spec.mutable_training()->set_micro_batch(8);
  spec.mutable_training()->mutable_optimizer()->mutable_adamw()->set_learning_rate(3e-3);
  spec.mutable_training()->mutable_evaluation()->set_interval_steps(0);
  return spec;
}

v1::JobSpec SearchSpec(const Flags& flags, const std::string& model, int seed, bool is_aware) {
  v1::JobSpec spec;
  spec.set_seed(static_cast<uint64_t>(seed));
  spec.mutable_model()->set_path(model);
  spec.mutable_data()->set_path(flags.data);
  spec.mutable_data()->set_sequence_length(flags.sequence);
  v1::PruneSearchSpec& kind = *spec.mutable_prune_search();
  kind.mutable_database()->set_levels(flags.levels);
  kind.mutable_database()->set_calibration_tokens(65536);
  kind.set_evaluation_batches(flags.batches);
  for (const v1::PruneBaseline baseline :
       {v1::PRUNE_BASELINE_UNIFORM, v1::PRUNE_BASELINE_SPDY, v1::PRUNE_BASELINE_MAGNITUDE, v1::PRUNE_BASELINE_DEPTH}) {
    if (is_aware) kind.add_baselines(baseline);
  }
  v1::PruneSearch& search = *kind.mutable_search();
  search.set_target_level(flags.target_level);
  search.set_generations(flags.generations);
  search.set_offspring(flags.offspring);
  search.mutable_fine_tune()->set_learning_rate(flags.learning_rate);
  // Without training-aware selection no stage trains; what fine-tuning makes of its winner is measured apart.
  const int64_t tokens[] = {flags.train_tokens / 4, flags.train_tokens};
  for (int stage = 0; stage < 2; ++stage) {
    v1::PruneStage& added = *search.add_stages();
    added.set_survivors(stage == 0 ? std::max(1, flags.offspring / 4) : 1);
    added.set_train_tokens(is_aware ? tokens[stage] : 0);
    added.set_evaluation_tokens(stage == 0 ? 4000 : 16000);
  }
  search.set_train_pool_tokens(200000);
  search.set_evaluation_pool_tokens(100000);
  return spec;
}

// The fine-tuning that the other search's last stage has, of the winner of one that has none.
absl::Status TuneWinner(const Flags& flags, const v1::JobSpec& search, const std::string& job_dir,
                        jobs::LocalTrials& trials, v1::JobResult* result) {
  TY_ASSIGN_OR_RETURN(const std::vector<std::string> files, ListDir(job_dir));
  std::string index;
  for (const std::string& file : files) {
    if (absl::StartsWith(file, "database-")) index = JoinPath(job_dir, file);
  }
  const nlohmann::json genome = nlohmann::json::parse(result->documents().at("genome"));
  const v1::PruneSearch& rules = search.prune_search().search();
  v1::TrialGeneration generation;
  generation.set_number(1'000'000);
  v1::JobSpec& spec = *generation.add_specs();
  *spec.mutable_model() = search.model();
  *spec.mutable_data() = search.data();
  spec.set_seed(search.seed());
  v1::PruneCandidate& candidate = *spec.mutable_prune_task()->mutable_candidate();
  candidate.set_database(index);
  for (const int32_t level : genome.at("attention")) candidate.add_attention_levels(level);
  for (const int32_t level : genome.at("mlp")) candidate.add_mlp_levels(level);
  candidate.set_train_tokens(flags.train_tokens);
  candidate.set_evaluation_tokens(rules.stages(1).evaluation_tokens());
  candidate.set_train_pool_tokens(rules.train_pool_tokens());
  candidate.set_evaluation_pool_tokens(rules.evaluation_pool_tokens());
  *candidate.mutable_fine_tune() = rules.fine_tune();
  candidate.set_prune_kv_heads(true);
  candidate.set_perplexity_batches(flags.batches);
  TY_ASSIGN_OR_RETURN(const std::vector<v1::TrialOutcome> outcomes, trials.Run(generation, nullptr));
  for (const char* name : {"tuned_kl", "tuned_perplexity"}) {
    (*result->mutable_values())[name] = outcomes.front().result().values().at(name);
  }
  return absl::OkStatus();
}

// Tokens a second of a model folder, the best of five: forward, and forward with backward.
absl::StatusOr<std::pair<double, double>> Speed(const std::string& folder, const Flags& flags) {
  constexpr int kBatch = 8, kRepeats = 5;
  kernels::Stream stream(1);
  TY_ASSIGN_OR_RETURN(const model::ModelConfig config, model::ReadConfig(folder));
  TY_ASSIGN_OR_RETURN(const prune::LoadedModel loaded, prune::AllocateModel(config, kernels::DType::kF32));
  TY_RETURN_IF_ERROR(ImportWeights(folder, config, loaded.weights.all, stream));
  const std::unique_ptr<linear::LinearScheme> scheme = linear::MakeFp32Scheme();
  const model::NetworkOptions options{.batch = kBatch, .seq = flags.sequence};
  kernels::Arena counting = kernels::Arena::CountOnly();
  {
    const model::Gradients gradients = AllocateGradients(config, counting);
    model::Network(config, options, scheme.get(), &loaded.weights, &gradients.tensors, counting);
  }
  TY_ASSIGN_OR_RETURN(kernels::Arena arena, kernels::Arena::Reserve(counting.used_bytes()));
  const model::Gradients gradients = AllocateGradients(config, arena);
  model::Network network(config, options, scheme.get(), &loaded.weights, &gradients.tensors, arena);
  network.Prepare(stream);
  const auto best = [&](const std::function<void()>& body) {
    double seconds = 1e9;
    for (int i = 0; i < kRepeats; ++i) {
      const absl::Duration begin = RealClock()->Monotonic();
      for (int j = 0; j < 4; ++j) body();
      seconds = std::min(seconds, absl::ToDoubleSeconds(RealClock()->Monotonic() - begin));
    }
    return 4.0 * kBatch * flags.sequence / seconds;
  };
  const double forward = best([&] { network.Forward(stream); });
  const double both = best([&] { network.ForwardBackward({}, stream); });
  return std::make_pair(forward, both);
}

struct Row {
  std::vector<double> kl, perplexity, tuned_kl, tuned_perplexity, parameters;
};

void Print(const char* name, const Row& row) {
  const auto text = [](const std::vector<double>& values) {
    if (values.empty()) return std::string("-");
    double mean = 0, square = 0;
    for (double value : values) mean += value / static_cast<double>(values.size());
    for (double value : values) square += (value - mean) * (value - mean);
    char out[64];
    std::snprintf(out, sizeof(out), "%.4f (%.4f)", mean,
                  values.size() > 1 ? std::sqrt(square / static_cast<double>(values.size() - 1)) : 0.0);
    return std::string(out);
  };
  double parameters = 0;
  for (double value : row.parameters) parameters += value / static_cast<double>(row.parameters.size());
  std::printf("| %s | %.0f | %s | %s | %s | %s |\n", name, parameters, text(row.kl).c_str(),
              text(row.perplexity).c_str(), text(row.tuned_kl).c_str(), text(row.tuned_perplexity).c_str());
}

absl::Status Main(const Flags& flags) {
  std::map<std::string, Row> rows;
  std::vector<std::string> winners, denses;
  std::vector<double> dense_perplexity;
  const TempDir temporary;
  const std::string root = flags.keep.empty() ? temporary.path() : flags.keep;
  for (int seed = 1; seed <= flags.seeds; ++seed) {
    const std::string directory = JoinPath(root, absl::StrCat("seed-", seed));
    std::string dense = flags.model;
    if (dense.empty()) {
      dense = JoinPath(directory, "dense/attempt/model");
      if (!FileExists(JoinPath(dense, "model.safetensors"))) {
        TY_ASSIGN_OR_RETURN(const Run run, RunJob(DenseSpec(flags, seed), JoinPath(directory, "dense"), nullptr));
        std::fprintf(stderr, "seed %d: dense model in %.0f s\n", seed, run.seconds);
      }
    }
    denses.push_back(dense);
    for (const bool is_aware : {false, true}) {
      const char* const name = is_aware ? "search, training-aware" : "search";
      const std::string job_dir = JoinPath(directory, is_aware ? "aware" : "plain");
      jobs::LocalTrials trials({.base_dir = JoinPath(job_dir, "trials"),
                                .parallel = flags.parallel,
                                .make_job = [](const spec::JobOptions& options) { return jobs::MakeJob(options); }});
      std::fprintf(stderr, "seed %d: %s\n", seed, name);
      const v1::JobSpec spec = SearchSpec(flags, dense, seed, is_aware);
      TY_ASSIGN_OR_RETURN(Run run, RunJob(spec, job_dir, &trials));
      if (!is_aware) TY_RETURN_IF_ERROR(TuneWinner(flags, spec, job_dir, trials, &run.result));
      std::fprintf(stderr, "  %.0f s\n", run.seconds);
      const auto& values = run.result.values();
      const auto add = [&](const std::string& row, const std::string& prefix) {
        const auto take = [&](const char* value, std::vector<double>* out) {
          if (const auto found = values.find(prefix + value); found != values.end()) out->push_back(found->second);
        };
        take("kl", &rows[row].kl);
        take("perplexity", &rows[row].perplexity);
        take("tuned_kl", &rows[row].tuned_kl);
        take("tuned_perplexity", &rows[row].tuned_perplexity);
        take("parameters", &rows[row].parameters);
      };
      add(name, "");
      if (is_aware) {
        for (const char* baseline : {"uniform", "spdy", "magnitude", "depth"})
          add(baseline, absl::StrCat(baseline, "_"));
        dense_perplexity.push_back(values.at("dense_perplexity"));
        winners.push_back(run.result.artifacts(0).path());
      }
    }
  }
  double perplexity = 0;
  for (double value : dense_perplexity) perplexity += value / static_cast<double>(dense_perplexity.size());
  std::printf("dense: perplexity %.4f\n\n", perplexity);
  std::printf("| | parameters | KL | perplexity | KL, tuned | perplexity, tuned |\n|---|---|---|---|---|---|\n");
  for (const char* name : {"search, training-aware", "search", "uniform", "spdy", "magnitude", "depth"}) {
    Print(name, rows[name]);
  }
  TY_ASSIGN_OR_RETURN(const auto dense_speed, Speed(denses.front(), flags));
  TY_ASSIGN_OR_RETURN(const auto small_speed, Speed(winners.front(), flags));
  std::printf(
      "\ntokens a second, one thread: dense %.0f forward, %.0f with backward; pruned %.0f (%.2fx), %.0f (%.2fx)\n",
      dense_speed.first, dense_speed.second, small_speed.first, small_speed.first / dense_speed.first,
      small_speed.second, small_speed.second / dense_speed.second);
  return absl::OkStatus();
}

}  // namespace
}  // namespace trainyard

int main(int argc, char** argv) {
  trainyard::Flags flags;
  CLI::App app("Pruned models by search and by baselines, over seeds");
  app.add_option("--data", flags.data, "data set folder, one token a byte unless --model is given")->required();
  app.add_option("--model", flags.model, "model folder to prune; absent: one is trained for each seed");
  app.add_option("--keep", flags.keep, "folder for models and trials, where a broken-off measurement goes on");
  app.add_option("--seeds", flags.seeds);
  app.add_option("--dense_steps", flags.dense_steps);
  app.add_option("--layers", flags.layers);
  app.add_option("--width", flags.width);
  app.add_option("--heads", flags.heads);
  app.add_option("--kv_heads", flags.kv_heads);
  app.add_option("--intermediate", flags.intermediate);
  app.add_option("--sequence", flags.sequence);
  app.add_option("--generations", flags.generations);
  app.add_option("--offspring", flags.offspring);
  app.add_option("--levels", flags.levels);
  app.add_option("--target_level", flags.target_level);
  app.add_option("--train_tokens", flags.train_tokens, "of the last stage; a quarter in the first");
  app.add_option("--learning_rate", flags.learning_rate, "of the fine-tuning");
  app.add_option("--batches", flags.batches, "validation batches of 4 windows");
  app.add_option("--parallel", flags.parallel, "trials at a time");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = trainyard::Main(flags);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
