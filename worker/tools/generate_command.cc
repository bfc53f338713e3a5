#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "worker/jobs/sample_text.h"
#include "worker/tools/commands.h"
#include "worker/tools/loaded_model.h"
#include "worker/tools/tool.h"

namespace trainyard::tools {
namespace {

struct Flags {
  std::string model;
  std::string tokenizer;
  std::string prompt;
  std::string dtype = "fp32";
  int64_t max_tokens = 128;
  model::SamplingOptions sampling;
  int threads = 0;
  bool quiet = false;
};

absl::Status Generate(const Flags& flags) {
  if (flags.max_tokens < 1 || flags.max_tokens > 1'000'000) {
    return absl::InvalidArgumentError(absl::StrCat("--max_tokens: ", flags.max_tokens, " not in [1, 1000000]"));
  }
  TY_ASSIGN_OR_RETURN(const kernels::DType dtype, ParseDType(flags.dtype));
  kernels::Stream stream(flags.threads > 0 ? flags.threads
                                           : std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
  TY_ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(flags.model, dtype, stream));
  jobs::SampleOptions options;
  options.max_tokens = flags.max_tokens;
  options.dtype = dtype;
  options.sampling = flags.sampling;
  const std::string& tokenizer = flags.tokenizer.empty() ? loaded.tokenizer_directory : flags.tokenizer;
  TY_ASSIGN_OR_RETURN(
      jobs::TextSampler sampler,
      jobs::TextSampler::Create(loaded.config, loaded.scheme.get(), &loaded.weights, tokenizer, options, &stream));
  std::cout << flags.prompt << std::flush;
  const absl::Duration begin = RealClock()->Monotonic();
  const auto print = [](absl::string_view piece) {
    std::cout << piece << std::flush;
    return static_cast<bool>(std::cout);  // a reader that has gone ends it
  };
  TY_RETURN_IF_ERROR(sampler.Continue(flags.prompt, print).status());
  std::cout << "\n";
  if (!flags.quiet) {
    const double seconds = absl::ToDoubleSeconds(RealClock()->Monotonic() - begin);
    std::cerr << absl::StrFormat("%d tokens in %.2f s, %.0f a second\n", sampler.tokens_generated(), seconds,
                                 static_cast<double>(sampler.tokens_generated()) / seconds);
  }
  return absl::OkStatus();
}

}  // namespace

void AddGenerateCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* const command = app.add_subcommand("generate", "Continue a text with a trained model");
  command->add_option("--model", flags->model, "Folder of a model (config.json) or a checkpoint (manifest.json)")
      ->required();
  command->add_option("--prompt", flags->prompt, "Text to continue; empty starts a new document");
  command->add_option("--max_tokens", flags->max_tokens, "At most so many tokens")->capture_default_str();
  command->add_option("--temperature", flags->sampling.temperature, "0 takes the likeliest token")
      ->capture_default_str();
  command->add_option("--top_p", flags->sampling.top_p, "Only the likeliest tokens of this probability together")
      ->capture_default_str();
  command->add_option("--seed", flags->sampling.seed, "Equal seeds give equal text")->capture_default_str();
  command->add_option("--tokenizer", flags->tokenizer, "Folder with tokenizer.json, if the model's has none");
  command->add_option("--dtype", flags->dtype, "Compute with weights in fp32 or bf16")->capture_default_str();
  command->add_option("--threads", flags->threads, "0: all CPUs")->capture_default_str();
  command->add_flag("--quiet", flags->quiet, "No speed on stderr");
  command->callback([flags, exit_code] { *exit_code = Finish(Generate(*flags)); });
}

}  // namespace trainyard::tools
