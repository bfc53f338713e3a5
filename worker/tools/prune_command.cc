#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "kernels/codec/bit_packing.h"
#include "kernels/prune/mask.h"
#include "worker/data/loader.h"
#include "worker/model/hugging_face.h"
#include "worker/model/mask_file.h"
#include "worker/prune/model_pruner.h"
#include "worker/tools/commands.h"
#include "worker/tools/loaded_model.h"
#include "worker/tools/tool.h"

namespace trainyard::tools {
namespace {

struct Flags {
  std::string model;
  std::string method = "sparsegpt";
  double sparsity = 0.5;
  std::string pattern;
  std::string data;
  std::string out;
  std::string output = "text";
  int64_t samples = 128;
  int64_t sequence_length = 0;
  uint64_t seed = 0;
  double damping = 0.01;
  int threads = 0;
};

absl::StatusOr<prune::OneShotOptions> ParseOptions(const Flags& flags) {
  prune::OneShotOptions options;
  if (flags.method == "magnitude") {
    options.method = prune::Method::kMagnitude;
  } else if (flags.method == "wanda") {
    options.method = prune::Method::kWanda;
  } else if (flags.method != "sparsegpt") {
    return absl::InvalidArgumentError(
        absl::StrCat("--method: '", flags.method, "' is not magnitude, wanda or sparsegpt"));
  }
  if (!(flags.sparsity >= 0 && flags.sparsity < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("--sparsity: ", flags.sparsity, " not in [0, 1)"));
  }
  options.sparsity = flags.sparsity;
  if (flags.pattern == "2:4") {
    options.group = 4;
  } else if (flags.pattern == "4:8") {
    options.group = 8;
  } else if (!flags.pattern.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--pattern: '", flags.pattern, "' is not 2:4 or 4:8"));
  }
  if (options.group > 0 && flags.sparsity != 0.5) {
    return absl::InvalidArgumentError(absl::StrCat("--sparsity: a pattern is 0.5, not ", flags.sparsity));
  }
  if (!(flags.damping > 0 && flags.damping <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("--damping: ", flags.damping, " not in (0, 1]"));
  }
  options.damping = flags.damping;
  if (flags.samples < 1 || flags.samples > 1'000'000) {
    return absl::InvalidArgumentError(absl::StrCat("--samples: ", flags.samples, " not in [1, 1000000]"));
  }
  if (flags.output != "text" && flags.output != "json") {
    return absl::InvalidArgumentError(absl::StrCat("-o: '", flags.output, "' is not text or json"));
  }
  if (options.method != prune::Method::kMagnitude && flags.data.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--data: ", flags.method, " needs a data set to see inputs of"));
  }
  return options;
}

absl::StatusOr<std::vector<prune::PrunedMatrix>> Prune(const Flags& flags, const prune::OneShotOptions& options,
                                                       const LoadedModel& loaded, kernels::Stream& stream) {
  if (options.method == prune::Method::kMagnitude) {
    const auto none = [](const kernels::TensorView&, const kernels::TensorView&) { return absl::OkStatus(); };
    return PruneModel(loaded.config, loaded.weights, options, {.load = none}, stream);
  }
  const int64_t length =
      flags.sequence_length > 0 ? flags.sequence_length : std::min<int64_t>(512, loaded.config.max_positions);
  if (length > loaded.config.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat("--sequence_length: ", length, " not in [1, ",
                                                   loaded.config.max_positions, "], the model's positions"));
  }
  data::LoaderOptions loading;
  loading.directory = flags.data;
  loading.sequence_length = static_cast<int>(length);
  loading.seed = flags.seed;
  loading.vocab_size = static_cast<int32_t>(loaded.config.vocab_size);
  TY_ASSIGN_OR_RETURN(data::Loader loader, data::Loader::Open(loading));
  const auto load = [&](const kernels::TensorView& tokens, const kernels::TensorView& targets) {
    return loader.Next(tokens, targets);
  };
  return PruneModel(loaded.config, loaded.weights, options,
                    {.sequences = flags.samples, .sequence_length = length, .load = load}, stream);
}

absl::StatusOr<int64_t> Save(const Flags& flags, const LoadedModel& loaded,
                             const std::vector<prune::PrunedMatrix>& matrices) {
  const std::string tokenizer =
      FileExists(JoinPath(loaded.tokenizer_directory, "tokenizer.json")) ? loaded.tokenizer_directory : "";
  TY_ASSIGN_OR_RETURN(const int64_t bytes, ExportModel(loaded.config, loaded.weights.all,
                                                       {.directory = flags.out, .tokenizer_source = tokenizer}));
  std::vector<std::vector<uint8_t>> bits;
  std::vector<model::MaskTensor> masks;
  for (const prune::PrunedMatrix& matrix : matrices) {
    const auto size = static_cast<int64_t>(matrix.kept.size());
    bits.emplace_back(static_cast<size_t>(kernels::MaskBytes(size)));
    kernels::PackCodes(matrix.kept.data(), size, 1, bits.back().data());
    masks.push_back({matrix.name, {bits.back().data(), kernels::DType::kU8, {kernels::MaskBytes(size)}}});
  }
  TY_ASSIGN_OR_RETURN(const int64_t mask_bytes,
                      WriteMasks(flags.out, masks,
                                 {{"method", flags.method},
                                  {"sparsity", absl::StrCat(flags.sparsity)},
                                  {"pattern", flags.pattern.empty() ? "unstructured" : flags.pattern}}));
  return bytes + mask_bytes;
}

absl::Status Run(const Flags& flags) {
  TY_ASSIGN_OR_RETURN(const prune::OneShotOptions options, ParseOptions(flags));
  kernels::Stream stream(flags.threads > 0 ? flags.threads
                                           : std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
  TY_ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(flags.model, kernels::DType::kF32, stream));
  TY_ASSIGN_OR_RETURN(const std::vector<prune::PrunedMatrix> matrices, Prune(flags, options, loaded, stream));
  TY_ASSIGN_OR_RETURN(const int64_t bytes, Save(flags, loaded, matrices));
  int64_t zeros = 0, elements = 0;
  for (const prune::PrunedMatrix& matrix : matrices) {
    elements += static_cast<int64_t>(matrix.kept.size());
    for (const uint8_t kept : matrix.kept) zeros += kept == 0;
  }
  if (flags.output == "json") {
    nlohmann::ordered_json root;
    root["model"] = flags.out;
    root["method"] = flags.method;
    root["matrices"] = matrices.size();
    root["elements"] = elements;
    root["pruned"] = zeros;
    root["bytes"] = bytes;
    std::cout << root.dump() << "\n";
  } else {
    std::cout << absl::StrFormat("%s: %d of %d weights in %d matrices pruned (%.3f %%)\n", flags.out, zeros, elements,
                                 matrices.size(), 100.0 * static_cast<double>(zeros) / static_cast<double>(elements));
  }
  return absl::OkStatus();
}

}  // namespace

void AddPruneCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* const command = app.add_subcommand("prune", "Prune a model without training it");
  command->add_option("MODEL,--model", flags->model, "Folder of a model (config.json) or a checkpoint (manifest.json)")
      ->required();
  command->add_option("--method", flags->method, "magnitude, wanda or sparsegpt")->capture_default_str();
  command->add_option("--sparsity", flags->sparsity, "Share of each matrix that becomes 0")->capture_default_str();
  command->add_option("--pattern", flags->pattern, "2:4 or 4:8 instead: the best of every 4 or 8 neighbours");
  command->add_option("--data", flags->data, "Data set folder made by `data tokenize`; magnitude needs none");
  command->add_option("--out", flags->out, "Folder for the pruned model and masks.safetensors")->required();
  command->add_option("--samples", flags->samples, "Windows of the train split to see inputs of")
      ->capture_default_str();
  command->add_option("--sequence_length", flags->sequence_length,
                      "Tokens of a window; 0: 512, or the model's positions");
  command->add_option("--seed", flags->seed, "Chooses the windows")->capture_default_str();
  command->add_option("--damping", flags->damping, "sparsegpt: share of the mean diagonal added to X^T X")
      ->capture_default_str();
  command->add_option("--threads", flags->threads, "0: all CPUs")->capture_default_str();
  command->add_option("-o,--output", flags->output, "text or json")->capture_default_str();
  command->callback([flags, exit_code] { *exit_code = Finish(Run(*flags)); });
}

}  // namespace trainyard::tools
