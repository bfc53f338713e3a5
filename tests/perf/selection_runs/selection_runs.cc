// The figures of docs/methods/influence-distillation.md: what each method selects from a mixture of sources for one of
// them, the loss on the target after trainings of equal steps, and what the stages cost beside the cost model.
//
//   selection_runs --pool POOL --target TARGET --held_out HELD_OUT --seeds 3
//
// POOL, TARGET and HELD_OUT are sample sets (`trainyard data samples`); HELD_OUT is of the target's source and in
// neither of the others: it is what trainings are judged by, since the target has chosen the samples.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/data/sample_set.h"
#include "worker/jobs/testing/job_rank.h"

namespace trainyard {
namespace {

using spec::SelectionMethod;

struct Flags {
  std::string pool, target, held_out;
  int64_t seeds = 3, count = 300, landmarks = 256, steps = 200, sequence_length = 128, blocks = 1;
  int64_t hidden = 128, layers = 4;
  int threads = 1;
  std::vector<std::string> methods = {"random", "full", "rds_plus", "less", "influence", "exact"};
};

absl::StatusOr<v1::JobResult> RunJob(const spec::JobOptions& options, const std::string& directory) {
  TY_RETURN_IF_ERROR(MakeDirs(directory));
  jobs::JobRank rank(options, directory);
  TY_RETURN_IF_ERROR(rank.job->Prepare(rank.context));
  TY_RETURN_IF_ERROR(rank.job->Initialize());
  while (true) {
    TY_ASSIGN_OR_RETURN(const jobs::UnitResult unit, rank.job->RunUnit());
    if (unit.done) return rank.job->Finish();
  }
}

spec::JobOptions BaseOptions(const Flags& flags, uint64_t seed) {
  spec::JobOptions options;
  spec::ShapeModel model;
  model.shape = {.vocab_size = 257,
                 .hidden_size = static_cast<int32_t>(flags.hidden),
                 .intermediate_size = static_cast<int32_t>(flags.hidden * 3),
                 .num_hidden_layers = static_cast<int32_t>(flags.layers),
                 .num_attention_heads = 4,
                 .num_key_value_heads = 4,
                 .head_dim = static_cast<int32_t>(flags.hidden / 4)};
  options.model.source = model;
  options.seed = seed;
  options.world.threads_per_rank = flags.threads;
  return options;
}

absl::StatusOr<v1::JobResult> RunSelection(const Flags& flags, SelectionMethod method, uint64_t seed,
                                           const std::string& directory) {
  spec::JobOptions options = BaseOptions(flags, seed);
  spec::SelectDataOptions select;
  select.method = method;
  select.pool = flags.pool;
  select.target = flags.target;
  select.count = flags.count;
  select.sequence_length = static_cast<int32_t>(flags.sequence_length);
  select.warmup.learning_rate = 1e-3;
  select.embedding.blocks = static_cast<int32_t>(flags.blocks);
  select.gradients.projection_dim = 4096;
  select.landmarks.count = static_cast<int32_t>(flags.landmarks);
  options.kind = select;
  return RunJob(options, directory);
}

// The selection with the held-out samples as its validation split.
absl::Status JudgeByHeldOut(const std::string& selection, const std::string& held_out, const std::string& output) {
  TY_ASSIGN_OR_RETURN(const data::SampleSet chosen, data::SampleSet::Open(selection));
  TY_ASSIGN_OR_RETURN(const data::SampleSet judges, data::SampleSet::Open(held_out));
  TY_ASSIGN_OR_RETURN(const std::string tokenizer, ReadFile(data::TokenizerPath(selection)));
  TY_ASSIGN_OR_RETURN(
      data::SampleSetWriter writer,
      data::SampleSetWriter::Create(output, chosen.info().vocab_size, chosen.info().end_of_text_id, tokenizer));
  for (int64_t i = 0; i < chosen.size(); ++i) {
    if (chosen.record(i).split == data::Split::kValidation) continue;
    TY_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, chosen.Tokens(i, chosen.record(i).length));
    TY_RETURN_IF_ERROR(writer.Add(chosen.record(i), tokens));
  }
  for (int64_t i = 0; i < judges.size(); ++i) {
    data::SampleRecord record = judges.record(i);
    record.id = absl::StrCat("held-out/", record.id);
    record.split = data::Split::kValidation;
    TY_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, judges.Tokens(i, record.length));
    TY_RETURN_IF_ERROR(writer.Add(record, tokens));
  }
  return writer.Finish(chosen.info().provenance).status();
}

absl::StatusOr<double> TrainedLoss(const Flags& flags, const std::string& samples, uint64_t seed,
                                   const std::string& directory) {
  spec::JobOptions options = BaseOptions(flags, seed);
  options.data.samples = samples;
  options.data.sequence_length = static_cast<int32_t>(flags.sequence_length);
  options.training.steps = flags.steps;
  options.training.micro_batch = 8;
  options.training.evaluation = {.interval_steps = 0, .batches = 1000};
  spec::AdamWOptions adam;
  adam.learning_rate = 2e-3;
  options.training.optimizer = adam;
  options.training.schedule.warmup_steps = flags.steps / 20;
  options.kind = spec::PretrainOptions{};
  TY_ASSIGN_OR_RETURN(const v1::JobResult result, RunJob(options, directory));
  return result.values().at("evaluation_loss");
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}
double Deviation(const std::vector<double>& values) {
  const double mean = Mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return values.size() > 1 ? std::sqrt(sum / static_cast<double>(values.size() - 1)) : 0;
}

// Share of the target's source among the selected.
double ShareOfTarget(const v1::JobResult& result, const std::string& source) {
  const auto report = nlohmann::json::parse(result.documents().at("report"));
  for (const auto& entry : report["sources"]) {
    if (entry["source"] == source) return entry["selected_share"].get<double>();
  }
  return 0;
}

absl::Status Run(const Flags& flags) {
  const std::map<std::string, SelectionMethod> known = {
      {"random", SelectionMethod::kRandom},       {"full", SelectionMethod::kFull},
      {"rds_plus", SelectionMethod::kRdsPlus},    {"less", SelectionMethod::kLess},
      {"influence", SelectionMethod::kInfluence}, {"exact", SelectionMethod::kExact}};
  TY_ASSIGN_OR_RETURN(const data::SampleSet target, data::SampleSet::Open(flags.target));
  const std::string source = target.record(0).source;
  const std::string root =
      JoinPath(std::filesystem::temp_directory_path().string(), absl::StrCat("selection_runs.", getpid()));
  std::map<std::string, std::vector<double>> seconds;  // of the stages of influence and exact
  std::printf("| method | loss on held-out samples | share of %s | selection seconds |\n|---|---|---|---|\n",
              source.c_str());
  for (const std::string& name : flags.methods) {
    std::vector<double> losses, shares, times;
    for (int64_t seed = 1; seed <= flags.seeds; ++seed) {
      const std::string directory = JoinPath(root, absl::StrCat(name, "-", seed));
      TY_ASSIGN_OR_RETURN(const v1::JobResult selection,
                          RunSelection(flags, known.at(name), static_cast<uint64_t>(seed), directory));
      double total = 0;
      for (const auto& [value_name, value] : selection.values()) {
        if (value_name.rfind("seconds_", 0) != 0) continue;
        total += value;
        seconds[absl::StrCat(name, " ", value_name.substr(8))].push_back(value);
      }
      times.push_back(total);
      shares.push_back(ShareOfTarget(selection, source));
      TY_RETURN_IF_ERROR(JudgeByHeldOut(selection.artifacts(0).path(), flags.held_out, JoinPath(directory, "judged")));
      TY_ASSIGN_OR_RETURN(const double loss, TrainedLoss(flags, JoinPath(directory, "judged"),
                                                         static_cast<uint64_t>(seed), JoinPath(directory, "training")));
      losses.push_back(loss);
    }
    std::printf("| %s | %.4f +- %.4f | %.2f | %.1f |\n", name.c_str(), Mean(losses), Deviation(losses), Mean(shares),
                Mean(times));
    std::fflush(stdout);
  }
  for (const auto& [stage, times] : seconds) std::printf("%s: %.2f s\n", stage.c_str(), Mean(times));
  if (!seconds.contains("influence embed") || !seconds.contains("exact score")) return RemoveTree(root);
  // exact goes through every sample with one gradient, 3 F; influence's embeddings cost (1 + 2 tangents) blocks /
  // layers F.
  const double measured = Mean(seconds["influence embed"]) / Mean(seconds["exact score"]);
  const double model = 5.0 * static_cast<double>(flags.blocks) / static_cast<double>(flags.layers) / 3;
  std::printf("\nembeddings of the pool %.2f s, gradients of the pool %.2f s: ratio %.3f; by FLOPs %.3f\n",
              Mean(seconds["influence embed"]), Mean(seconds["exact score"]), measured, model);
  return RemoveTree(root);
}

}  // namespace
}  // namespace trainyard

int main(int argc, char** argv) {
  trainyard::Flags flags;
  CLI::App app("Compares methods of data selection");
  app.add_option("--pool", flags.pool, "Sample set to choose from")->required();
  app.add_option("--target", flags.target, "Sample set to choose for")->required();
  app.add_option("--held_out", flags.held_out, "Sample set to judge by")->required();
  app.add_option("--seeds", flags.seeds, "Runs of each method")->capture_default_str();
  app.add_option("--count", flags.count, "Samples to choose")->capture_default_str();
  app.add_option("--landmarks", flags.landmarks, "Landmarks")->capture_default_str();
  app.add_option("--steps", flags.steps, "Steps of each training, of 8 samples")->capture_default_str();
  app.add_option("--sequence_length", flags.sequence_length, "Positions of a row")->capture_default_str();
  app.add_option("--blocks", flags.blocks, "Blocks of the embedding")->capture_default_str();
  app.add_option("--hidden", flags.hidden, "Width of the model")->capture_default_str();
  app.add_option("--layers", flags.layers, "Blocks of the model")->capture_default_str();
  app.add_option("--methods", flags.methods, "Methods, in this order")
      ->delimiter(',')
      ->check(CLI::IsMember({"random", "full", "rds_plus", "less", "influence", "exact"}))
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "CPU threads")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (const absl::Status status = trainyard::Run(flags); !status.ok()) {
    std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
