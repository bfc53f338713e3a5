#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/yaml_spec.h"
#include "proto/spec/references.h"
#include "worker/jobs/pretrain_setup.h"
#include "worker/jobs/qoda_gan_setup.h"
#include "worker/model/network.h"
#include "worker/tools/commands.h"
#include "worker/tools/tool.h"
#include "worker/train/gan_plan.h"
#include "worker/train/plan.h"

namespace trainyard::tools {
namespace {

struct Flags {
  std::string file;
  std::vector<std::string> overrides;
  std::string data_root = ".";
  std::string output = "text";
};

void PrintJson(const std::string& name, int ranks, const train::TrainingPlan& plan) {
  nlohmann::ordered_json root;
  root["job"] = name;
  root["ranks"] = ranks;
  root["parameters"] = plan.parameters;
  root["memory_bytes_per_rank"] = plan.memory_bytes;
  for (const auto& [purpose, bytes] : plan.memory) root["memory_by_purpose"][purpose] = bytes;
  if (!plan.host_memory.empty()) {
    root["device_memory_bytes_per_rank"] = plan.memory_bytes - plan.host_memory_bytes;
    root["host_memory_bytes_per_rank"] = plan.host_memory_bytes;
    for (const auto& [purpose, bytes] : plan.host_memory) root["host_memory_by_purpose"][purpose] = bytes;
  }
  root["tokens_per_step"] = plan.tokens_per_step;
  root["flops_per_token"] = plan.flops_per_token;
  root["flops_per_step"] = plan.flops_per_step;
  root["wire_bytes_per_step_per_rank"] = plan.wire_bytes_per_step;
  root["uncoded_bytes_per_step_per_rank"] = plan.uncoded_bytes_per_step;
  root["gather_bytes_per_step_per_rank"] = plan.gather_bytes_per_step;
  root["exchange_buckets"] = plan.exchange_buckets;
  std::cout << root.dump() << "\n";
}

void PrintMemory(const kernels::MemoryPlan& memory, int64_t total) {
  std::cout << "memory of one rank\n";
  for (const auto& [purpose, bytes] : memory) {
    std::cout << absl::StrFormat("  %-14s %12s  %5.1f %%\n", purpose, BytesText(bytes),
                                 100.0 * static_cast<double>(bytes) / static_cast<double>(total));
  }
  std::cout << absl::StrFormat("  %-14s %12s\n\n", "total", BytesText(total));
}

// Of a run on a device; `host`: what of `memory` is the host's.
void PrintDividedMemory(const kernels::MemoryPlan& memory, const kernels::MemoryPlan& host) {
  std::cout << absl::StrFormat("memory of one rank %12s %12s\n", "device", "host");
  const auto text = [](int64_t bytes) { return bytes == 0 ? std::string("-") : BytesText(bytes); };
  int64_t device_total = 0, host_total = 0;
  for (const auto& [purpose, bytes] : memory) {
    const auto found = host.find(purpose);
    const int64_t host_bytes = found == host.end() ? 0 : found->second;
    std::cout << absl::StrFormat("  %-16s %12s %12s\n", purpose, text(bytes - host_bytes), text(host_bytes));
    device_total += bytes - host_bytes;
    host_total += host_bytes;
  }
  std::cout << absl::StrFormat("  %-16s %12s %12s\n\n", "total", text(device_total), text(host_total));
}

// `sent`: by one rank in a step; `uncoded`: what f32 would send.
void PrintWire(int64_t sent, int64_t uncoded, int64_t buckets) {
  std::cout << "  on the wire    " << absl::StrFormat("%12s", BytesText(sent))
            << "  sent by each rank, and as much received, in " << buckets
            << (buckets == 1 ? " bucket\n" : " buckets\n");
  if (sent != uncoded) {
    std::cout << absl::StrFormat("  instead of     %12s  that f32 would take: %.2f times as much\n", BytesText(uncoded),
                                 static_cast<double>(uncoded) / static_cast<double>(sent));
  }
}

std::string Heading(const std::string& name, int ranks) {
  return absl::StrCat(name.empty() ? "job" : name, ": ", ranks, ranks == 1 ? " rank, " : " ranks, ");
}

void PrintText(const std::string& name, int ranks, const train::TrainingPlan& plan) {
  std::cout << Heading(name, ranks) << CountText(static_cast<double>(plan.parameters)) << " parameters\n\n";
  if (plan.host_memory.empty()) {
    PrintMemory(plan.memory, plan.memory_bytes);
  } else {
    PrintDividedMemory(plan.memory, plan.host_memory);
  }
  std::cout << "one step of all ranks\n"
            << "  tokens         " << absl::StrFormat("%12d\n", plan.tokens_per_step) << "  operations     "
            << absl::StrFormat("%12s", CountText(plan.flops_per_step) + "FLOP") << "  ("
            << CountText(plan.flops_per_token) << "FLOP a token)\n";
  if (ranks > 1) PrintWire(plan.wire_bytes_per_step, plan.uncoded_bytes_per_step, plan.exchange_buckets);
  if (plan.gather_bytes_per_step > 0) {
    std::cout << absl::StrFormat("  of these       %12s", BytesText(plan.gather_bytes_per_step))
              << "  for weights that ranks update for each other (training.shard)\n";
  }
}

void PrintJson(const std::string& name, int ranks, const train::GanPlan& plan) {
  nlohmann::ordered_json root;
  root["job"] = name;
  root["ranks"] = ranks;
  root["generator_parameters"] = plan.generator_parameters;
  root["discriminator_parameters"] = plan.discriminator_parameters;
  root["memory_bytes_per_rank"] = plan.memory_bytes;
  for (const auto& [purpose, bytes] : plan.memory) root["memory_by_purpose"][purpose] = bytes;
  root["samples_per_step"] = plan.samples_per_step;
  root["exchanges_per_step"] = plan.exchanges_per_step;
  root["wire_bytes_per_step_per_rank"] = plan.wire_bytes_per_step;
  root["uncoded_bytes_per_step_per_rank"] = plan.uncoded_bytes_per_step;
  root["exchange_buckets"] = plan.exchange_buckets;
  std::cout << root.dump() << "\n";
}

void PrintText(const std::string& name, int ranks, const train::GanPlan& plan) {
  std::cout << Heading(name, ranks) << CountText(static_cast<double>(plan.generator_parameters))
            << " parameters in the generator, " << CountText(static_cast<double>(plan.discriminator_parameters))
            << " in the discriminator\n\n";
  PrintMemory(plan.memory, plan.memory_bytes);
  std::cout << "one step of all ranks\n"
            << "  samples        " << absl::StrFormat("%12d\n", plan.samples_per_step) << "  exchanges      "
            << absl::StrFormat("%12d\n", plan.exchanges_per_step);
  if (ranks > 1) PrintWire(plan.wire_bytes_per_step, plan.uncoded_bytes_per_step, plan.exchange_buckets);
}

template <typename AnyPlan>
void Print(const Flags& flags, const spec::JobOptions& options, const AnyPlan& plan) {
  if (flags.output == "json") {
    PrintJson(options.name, options.world.max, plan);
  } else {
    PrintText(options.name, options.world.max, plan);
  }
}

// What a search asks of its trials, counted: the stages of all generations.
struct SearchCount {
  explicit SearchCount(const spec::PruneSearchRules& rules) {
    int64_t candidates = rules.offspring;
    for (const spec::PruneStageOptions& stage : rules.stages) {
      per_generation.push_back(candidates);
      trials += rules.generations * candidates;
      train_tokens += rules.generations * candidates * stage.train_tokens;
      evaluation_tokens += rules.generations * candidates * stage.evaluation_tokens;
      candidates = stage.survivors;
    }
  }
  std::vector<int64_t> per_generation;  // trials of each stage
  int64_t trials = 0, train_tokens = 0, evaluation_tokens = 0;
};

void PrintSearch(const Flags& flags, const spec::JobOptions& options, const spec::PruneSearchOptions& search) {
  const SearchCount count(search.search);
  const std::vector<spec::PruneStageOptions>& stages = search.search.stages;
  if (flags.output == "json") {
    nlohmann::ordered_json root;
    root["job"] = options.name;
    root["ranks_per_trial"] = options.world.max;
    root["calibration_tokens"] = search.database.calibration_tokens;
    root["generations"] = search.search.generations;
    root["trials_per_generation"] = count.per_generation;
    root["trials"] = count.trials;
    root["train_tokens"] = count.train_tokens;
    root["evaluation_tokens"] = count.evaluation_tokens;
    std::cout << root.dump() << "\n";
    return;
  }
  std::cout << (options.name.empty() ? "job" : options.name) << ": a search on a driver slot, its trials on "
            << options.world.max << (options.world.max == 1 ? " rank each\n\n" : " ranks each\n\n")
            << "one generation\n";
  for (size_t i = 0; i < stages.size(); ++i) {
    std::cout << absl::StrFormat("  stage %-2d       %6d trials, %s tokens to train on and %s to evaluate on\n", i + 1,
                                 count.per_generation[i], CountText(static_cast<double>(stages[i].train_tokens)),
                                 CountText(static_cast<double>(stages[i].evaluation_tokens)));
  }
  std::cout << absl::StrFormat("\nthe whole search, %d generations\n", search.search.generations) << "  calibration    "
            << CountText(static_cast<double>(search.database.calibration_tokens)) << " tokens\n"
            << "  trials         " << count.trials << "\n"
            << "  to train on    " << CountText(static_cast<double>(count.train_tokens)) << " tokens\n"
            << "  to evaluate on " << CountText(static_cast<double>(count.evaluation_tokens)) << " tokens\n";
}

void PrintSelection(const Flags& flags, const spec::JobOptions& options, const spec::SelectDataOptions& selection) {
  constexpr int64_t kFloatBytes = 4;
  const int64_t landmarks = selection.landmarks.count;
  const int64_t gradients = landmarks * selection.gradients.projection_dim * kFloatBytes;
  const int64_t embeddings = landmarks * selection.embedding.projection_dim * kFloatBytes;
  const int64_t kernel = landmarks * landmarks * kFloatBytes;
  if (flags.output == "json") {
    nlohmann::ordered_json root;
    root["job"] = options.name;
    root["ranks"] = options.world.max;
    root["landmarks"] = landmarks;
    root["landmark_gradient_bytes"] = gradients;
    root["landmark_embedding_bytes"] = embeddings;
    root["landmark_kernel_bytes"] = kernel;
    root["embedding_bytes_per_sample"] = selection.embedding.projection_dim * kFloatBytes;
    std::cout << root.dump() << "\n";
    return;
  }
  std::cout << Heading(options.name, options.world.max) << "a selection\n\n"
            << "of " << landmarks << " landmarks, or of all samples if the pool has fewer\n"
            << absl::StrFormat("  gradients      %12s\n", BytesText(gradients))
            << absl::StrFormat("  embeddings     %12s\n", BytesText(embeddings))
            << absl::StrFormat("  kernel         %12s\n", BytesText(kernel)) << "of each sample of the pool\n"
            << absl::StrFormat("  embedding      %12s\n", BytesText(selection.embedding.projection_dim * kFloatBytes));
}

// A kind without a line here does not compile.
struct PlanOfKind {
  const Flags& flags;
  const spec::JobOptions& options;

  absl::Status operator()(const spec::PretrainOptions&) const { return PlanLanguageModel(); }
  absl::Status operator()(const spec::QatOptions&) const { return PlanLanguageModel(); }
  absl::Status PlanLanguageModel() const {
    const int ranks = options.world.max;
    TY_ASSIGN_OR_RETURN(const jobs::PretrainSetup setup,
                        jobs::SetUpPretrain(options, flags.data_root, /*rank=*/0, ranks));
    TY_RETURN_IF_ERROR(Validate(setup.trainer.config));
    TY_ASSIGN_OR_RETURN(const train::TrainingPlan plan, PlanTraining(setup.trainer, options.communication, ranks));
    Print(flags, options, plan);
    return absl::OkStatus();
  }
  absl::Status operator()(const spec::QodaGanOptions&) const {
    const jobs::QodaGanSetup setup = jobs::SetUpQodaGan(options, /*rank=*/0, options.world.max);
    TY_ASSIGN_OR_RETURN(const train::GanPlan plan, PlanGan(setup.trainer, setup.evaluator));
    Print(flags, options, plan);
    return absl::OkStatus();
  }
  absl::Status operator()(const spec::PruneSearchOptions& search) const {
    PrintSearch(flags, options, search);
    return absl::OkStatus();
  }
  absl::Status operator()(const spec::PruneTaskOptions&) const {
    return absl::InvalidArgumentError("prune_task is a trial of a prune_search; plan that");
  }
  absl::Status operator()(const spec::SelectDataOptions& selection) const {
    PrintSelection(flags, options, selection);
    return absl::OkStatus();
  }
  absl::Status operator()(const spec::StudyOptions& study) const { return PlanStudy(study); }

  // The trainings by size, and the memory of the largest.
  absl::Status PlanStudy(const spec::StudyOptions& study) const {
    const double runs_per_cell = static_cast<double>(study.recipes.size() * study.seeds.size());
    double flops = 0;
    const spec::StudySize* largest = nullptr;
    for (const spec::StudySize& size : study.sizes) {
      const double parameters = static_cast<double>(spec::NonEmbeddingParameters(size.shape));
      for (const double ratio : study.tokens_per_parameter) {
        flops += 6 * parameters * spec::StudyTokens(size, ratio) * runs_per_cell;
      }
      if (largest == nullptr || parameters > static_cast<double>(spec::NonEmbeddingParameters(largest->shape))) {
        largest = &size;
      }
    }
    const size_t trials =
        study.sizes.size() * study.tokens_per_parameter.size() * study.recipes.size() * study.seeds.size();
    if (flags.output == "text") {
      std::cout << (options.name.empty() ? "job" : options.name) << ": a study of " << trials << " trainings, at most "
                << study.max_parallel << " at a time, " << CountText(flops) << "FLOP in all by 6 N D\n\n";
      for (const spec::StudySize& size : study.sizes) {
        std::cout << absl::StrFormat("  %-14s %8s parameters without embeddings, %s to %s tokens\n", size.name,
                                     CountText(static_cast<double>(spec::NonEmbeddingParameters(size.shape))),
                                     CountText(spec::StudyTokens(size, study.tokens_per_parameter.front())),
                                     CountText(spec::StudyTokens(size, study.tokens_per_parameter.back())));
      }
      std::cout << "\nThe largest, with the job's training:\n";
    } else {
      nlohmann::ordered_json root;
      root["job"] = options.name;
      root["trials"] = trials;
      root["flops"] = flops;
      std::cout << root.dump() << "\n";
    }
    spec::JobOptions trial = options;
    trial.name = largest->name;
    trial.model.source = spec::ShapeModel{largest->shape};
    trial.kind = spec::PretrainOptions{};
    return PlanOfKind{flags, trial}.PlanLanguageModel();
  }
};

absl::Status Plan(const Flags& flags) {
  if (flags.output != "text" && flags.output != "json") {
    return absl::InvalidArgumentError(absl::StrCat("-o: '", flags.output, "' is not text or json"));
  }
  TY_ASSIGN_OR_RETURN(const std::vector<client::LoadedJob> jobs, client::LoadJobFile(flags.file, flags.overrides));
  for (const client::LoadedJob& job : jobs) {
    TY_ASSIGN_OR_RETURN(const spec::JobOptions options, spec::ParseJob(job.spec));
    if (const absl::Status resolved = spec::CheckResolved(options); !resolved.ok()) {
      // Of a pipeline, the jobs that stand on their own are planned.
      if (jobs.size() == 1) return resolved;
      std::cerr << (options.name.empty() ? "a job" : options.name) << ": no plan before it runs: " << resolved.message()
                << "\n";
      continue;
    }
    TY_RETURN_IF_ERROR(std::visit(PlanOfKind{flags, options}, options.kind));
  }
  return absl::OkStatus();
}

}  // namespace

void AddPlanCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* const command = app.add_subcommand("plan", "Memory, operations and bytes on the wire of a job");
  command->add_option("job,-f,--file", flags->file, "Job file: YAML, JSON or textproto; - is standard input")
      ->required();
  command->add_option("--set", flags->overrides, "path=value over the file, as often as wanted");
  command->add_option("--data_root", flags->data_root, "Where relative paths of the job start")->capture_default_str();
  command->add_option("-o,--output", flags->output, "text or json (one line a job)")->capture_default_str();
  command->callback([flags, exit_code] { *exit_code = Finish(Plan(*flags)); });
}

}  // namespace trainyard::tools
