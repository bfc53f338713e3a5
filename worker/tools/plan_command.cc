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
  root["tokens_per_step"] = plan.tokens_per_step;
  root["flops_per_token"] = plan.flops_per_token;
  root["flops_per_step"] = plan.flops_per_step;
  root["wire_bytes_per_step_per_rank"] = plan.wire_bytes_per_step;
  root["uncoded_bytes_per_step_per_rank"] = plan.uncoded_bytes_per_step;
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
  PrintMemory(plan.memory, plan.memory_bytes);
  std::cout << "one step of all ranks\n"
            << "  tokens         " << absl::StrFormat("%12d\n", plan.tokens_per_step) << "  operations     "
            << absl::StrFormat("%12s", CountText(plan.flops_per_step) + "FLOP") << "  ("
            << CountText(plan.flops_per_token) << "FLOP a token)\n";
  if (ranks > 1) PrintWire(plan.wire_bytes_per_step, plan.uncoded_bytes_per_step, plan.exchange_buckets);
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
};

absl::Status Plan(const Flags& flags) {
  if (flags.output != "text" && flags.output != "json") {
    return absl::InvalidArgumentError(absl::StrCat("-o: '", flags.output, "' is not text or json"));
  }
  TY_ASSIGN_OR_RETURN(const std::vector<client::LoadedJob> jobs, client::LoadJobFile(flags.file, flags.overrides));
  for (const client::LoadedJob& job : jobs) {
    TY_ASSIGN_OR_RETURN(const spec::JobOptions options, spec::ParseJob(job.spec));
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
