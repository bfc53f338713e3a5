#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "worker/data/loader.h"
#include "worker/model/network.h"
#include "worker/tools/commands.h"
#include "worker/tools/loaded_model.h"
#include "worker/tools/tool.h"

namespace trainyard::tools {
namespace {

struct Flags {
  std::string model;
  std::string data;
  std::string dtype = "fp32";
  std::string output = "text";
  int64_t sequence_length = 0;
  int64_t batch = 4;
  int64_t windows = 0;
  int threads = 0;
};

struct Evaluation {
  double loss = 0;
  int64_t tokens = 0;
  int64_t windows = 0;
};

absl::StatusOr<Evaluation> Measure(const Flags& flags, const LoadedModel& loaded, kernels::Stream& stream) {
  data::LoaderOptions loading;
  loading.directory = flags.data;
  loading.sequence_length = static_cast<int>(flags.sequence_length);
  loading.vocab_size = static_cast<int32_t>(loaded.config.vocab_size);
  TY_ASSIGN_OR_RETURN(const data::Loader loader, data::Loader::Open(loading));
  int64_t windows = loader.validation_windows();
  if (windows == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(flags.data, ": no validation window of ", flags.sequence_length, " tokens"));
  }
  if (flags.windows > 0) windows = std::min(windows, flags.windows);

  const model::NetworkOptions options{
      .batch = flags.batch, .seq = flags.sequence_length, .dtype = loaded.dtype, .threads = stream.threads()};
  kernels::Arena counting = kernels::Arena::CountOnly();
  model::Network(loaded.config, options, loaded.scheme.get(), &loaded.weights, nullptr, counting);
  TY_ASSIGN_OR_RETURN(kernels::Arena arena, kernels::Arena::Reserve(counting.used_bytes()));
  model::Network network(loaded.config, options, loaded.scheme.get(), &loaded.weights, nullptr, arena);
  network.Prepare(stream);

  Evaluation evaluation;
  evaluation.windows = windows;
  double sum = 0;
  const bool is_terminal = isatty(STDERR_FILENO) != 0;
  for (int64_t first = 0; first < windows; first += flags.batch) {
    TY_RETURN_IF_ERROR(loader.Validation(first, network.tokens(), network.targets()).status());
    network.Forward(stream);
    const int64_t rows = std::min(flags.batch, windows - first);
    for (int64_t i = 0; i < rows * flags.sequence_length; ++i) sum += network.losses().as<float>()[i];
    evaluation.tokens += rows * flags.sequence_length;
    if (is_terminal)
      std::fprintf(stderr, "\r%ld of %ld windows\x1b[K", static_cast<long>(first + rows), static_cast<long>(windows));
  }
  if (is_terminal) std::fprintf(stderr, "\r\x1b[K");
  evaluation.loss = sum / static_cast<double>(evaluation.tokens);
  return evaluation;
}

absl::Status Eval(Flags flags) {
  if (flags.output != "text" && flags.output != "json") {
    return absl::InvalidArgumentError(absl::StrCat("-o: '", flags.output, "' is not text or json"));
  }
  if (flags.batch < 1 || flags.batch > 65536) {
    return absl::InvalidArgumentError(absl::StrCat("--batch: ", flags.batch, " not in [1, 65536]"));
  }
  TY_ASSIGN_OR_RETURN(const kernels::DType dtype, ParseDType(flags.dtype));
  kernels::Stream stream(flags.threads > 0 ? flags.threads
                                           : std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
  TY_ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(flags.model, dtype, stream));
  if (flags.sequence_length == 0) flags.sequence_length = std::min<int64_t>(512, loaded.config.max_positions);
  if (flags.sequence_length < 1 || flags.sequence_length > loaded.config.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat("--sequence_length: ", flags.sequence_length, " not in [1, ",
                                                   loaded.config.max_positions, "], the model's positions"));
  }
  TY_ASSIGN_OR_RETURN(const Evaluation evaluation, Measure(flags, loaded, stream));
  if (flags.output == "json") {
    nlohmann::ordered_json root;
    root["loss"] = evaluation.loss;
    root["perplexity"] = std::exp(evaluation.loss);
    root["tokens"] = evaluation.tokens;
    root["windows"] = evaluation.windows;
    root["sequence_length"] = flags.sequence_length;
    std::cout << root.dump() << "\n";
  } else {
    std::cout << absl::StrFormat(
        "loss        %.5f nats a token\nperplexity  %.3f\ntokens      %d in %d windows of %d\n", evaluation.loss,
        std::exp(evaluation.loss), evaluation.tokens, evaluation.windows, flags.sequence_length);
  }
  return absl::OkStatus();
}

}  // namespace

void AddEvalCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* const command = app.add_subcommand("eval", "Loss and perplexity on a data set's validation split");
  command->add_option("--model", flags->model, "Folder of a model (config.json) or a checkpoint (manifest.json)")
      ->required();
  command->add_option("--data", flags->data, "Data set folder made by `data tokenize`")->required();
  command->add_option("--sequence_length", flags->sequence_length,
                      "Tokens of a window; 0: 512, or the model's positions");
  command->add_option("--windows", flags->windows, "At most so many windows; 0: all")->capture_default_str();
  command->add_option("--batch", flags->batch, "Windows at a time")->capture_default_str();
  command->add_option("--dtype", flags->dtype, "Compute with weights in fp32 or bf16")->capture_default_str();
  command->add_option("--threads", flags->threads, "0: all CPUs")->capture_default_str();
  command->add_option("-o,--output", flags->output, "text or json")->capture_default_str();
  command->callback([flags, exit_code] { *exit_code = Finish(Eval(*flags)); });
}

}  // namespace trainyard::tools
