#include "worker/tools/data_command.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/data/corpus.h"
#include "worker/data/dataset.h"
#include "worker/data/dataset_builder.h"
#include "worker/data/sample_set_builder.h"
#include "worker/data/tokenizer.h"

namespace trainyard {
namespace {

using data::Split;

int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  std::cerr << "error: " << status.message() << "\n";
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return 2;
    case absl::StatusCode::kNotFound:
      return 3;
    case absl::StatusCode::kPermissionDenied:
      return 4;
    default:
      return 1;
  }
}

// One line, rewritten, on a terminal; a line a phase elsewhere.
class ProgressLine {
 public:
  void operator()(const char* phase, int64_t done, int64_t total) {
    const double share = total == 0 ? 1 : static_cast<double>(done) / static_cast<double>(total);
    if (is_terminal_) {
      std::fprintf(stderr, "\r%-16s %5.1f %% of %.1f MB\x1b[K%s", phase, 100 * share, static_cast<double>(total) * 1e-6,
                   done == total ? "\n" : "");
    } else if (done == 0) {
      std::fprintf(stderr, "%s: %.1f MB\n", phase, static_cast<double>(total) * 1e-6);
    }
    std::fflush(stderr);
  }

 private:
  const bool is_terminal_ = isatty(STDERR_FILENO) != 0;
};

void PrintDataset(const std::string& directory, const data::DatasetInfo& info) {
  std::cout << absl::StreamFormat("dataset     %s\n", directory);
  std::cout << absl::StreamFormat("tokenizer   %s, %d tokens, end of text %d\n", info.tokenizer, info.vocab_size,
                                  info.end_of_text_id);
  for (const Split split : {Split::kTrain, Split::kValidation}) {
    std::cout << absl::StreamFormat("%-11s %d tokens, %d documents, %d shards\n", Name(split), info.TokenCount(split),
                                    info.DocumentCount(split), info.shards(split).size());
  }
  const int64_t tokens = info.TokenCount(Split::kTrain) + info.TokenCount(Split::kValidation);
  std::cout << absl::StreamFormat(
      "text        %.2f MB, %.3f bytes a token\n", static_cast<double>(info.source_bytes) * 1e-6,
      static_cast<double>(info.source_bytes) / static_cast<double>(std::max<int64_t>(tokens, 1)));
  std::cout << "fingerprint " << info.Fingerprint() << "\n";
}

absl::Status Tokenize(data::DatasetOptions options, const std::string& escaped_separator, bool is_quiet) {
  std::string problem;
  // "\n\n" on a command line is typed with backslashes.
  if (!absl::CUnescape(escaped_separator, &options.corpus.separator, &problem)) {
    return absl::InvalidArgumentError(absl::StrCat("--separator: ", problem));
  }
  if (!is_quiet) options.progress = ProgressLine();
  TY_ASSIGN_OR_RETURN(const data::DatasetInfo info, BuildDataset(options));
  PrintDataset(options.output, info);
  return absl::OkStatus();
}

absl::Status Inspect(const std::string& directory, int sample_tokens) {
  TY_ASSIGN_OR_RETURN(const data::DatasetInfo info, data::ReadDatasetInfo(directory));
  PrintDataset(directory, info);
  TY_ASSIGN_OR_RETURN(const data::Tokenizer tokenizer, data::Tokenizer::Load(data::TokenizerPath(directory)));
  for (const Split split : {Split::kTrain, Split::kValidation}) {
    TY_ASSIGN_OR_RETURN(const std::vector<data::TokenShard> shards, data::OpenShards(directory, info, split));
    for (const data::TokenShard& shard : shards) TY_RETURN_IF_ERROR(shard.Verify());
    if (shards.empty()) continue;
    std::vector<int32_t> tokens(static_cast<size_t>(std::min<int64_t>(sample_tokens, shards[0].info().token_count)));
    shards[0].Copy(0, static_cast<int64_t>(tokens.size()), tokens.data());
    std::cout << "\n" << Name(split) << " begins with:\n" << tokenizer.Decode(tokens, /*keep_special=*/true) << "\n";
  }
  std::cout << "\nall digests are right\n";
  return absl::OkStatus();
}

absl::Status MakeSamples(const data::SampleSetOptions& options) {
  TY_ASSIGN_OR_RETURN(const data::SampleSetReport report, BuildSampleSet(options));
  for (const std::string& line : report.damaged) std::cerr << line << "\n";
  const int64_t untold = report.damaged_count - static_cast<int64_t>(report.damaged.size());
  if (untold > 0) std::cerr << "and " << untold << " more damaged lines\n";
  std::cout << absl::StreamFormat("samples     %d, %d of them for validation\n", report.info.sample_count,
                                  report.validation_count);
  std::cout << absl::StreamFormat("tokens      %d, vocabulary %d\n", report.info.shard.info.token_count,
                                  report.info.vocab_size);
  std::cout << absl::StreamFormat("left out    %d damaged lines, %d empty ones\n", report.damaged_count,
                                  report.empty_line_count);
  std::cout << absl::StreamFormat("no labels   %d samples, which are never selected\n", report.info.unlabelled_count);
  for (const auto& [source, count] : report.info.sources) {
    if (!source.empty()) std::cout << absl::StreamFormat("source      %s: %d\n", source, count);
  }
  std::cout << "fingerprint " << report.info.Fingerprint() << "\n";
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadInput(const std::string& path) {
  if (path != "-") return ReadFile(path);
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

absl::Status Encode(const std::string& tokenizer_path, const std::string& input, bool is_lines) {
  TY_ASSIGN_OR_RETURN(const data::Tokenizer tokenizer, data::Tokenizer::Load(tokenizer_path));
  TY_ASSIGN_OR_RETURN(const std::string text, ReadInput(input));
  data::Encoder encoder(tokenizer);
  std::vector<int32_t> ids;
  if (!is_lines) {
    encoder.Encode(text, /*parse_added=*/true, &ids);
    std::cout << absl::StrJoin(ids, " ") << "\n";
    return absl::OkStatus();
  }
  int64_t line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    ++line_number;
    const nlohmann::json json = nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    if (!json.is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(input, ":", line_number, ": is not a JSON string"));
    }
    ids.clear();
    encoder.Encode(json.get_ref<const std::string&>(), /*parse_added=*/true, &ids);
    std::cout << absl::StrJoin(ids, " ") << "\n";
  }
  return absl::OkStatus();
}

absl::Status Decode(const std::string& tokenizer_path, const std::string& input) {
  TY_ASSIGN_OR_RETURN(const data::Tokenizer tokenizer, data::Tokenizer::Load(tokenizer_path));
  TY_ASSIGN_OR_RETURN(const std::string text, ReadInput(input));
  std::vector<int32_t> ids;
  for (absl::string_view word : absl::StrSplit(text, absl::ByAnyChar(" \n\t,"), absl::SkipEmpty())) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(word, &id) || id < 0 || id >= tokenizer.vocab_size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(input, ": \"", word, "\" is not an id in [0, ", tokenizer.vocab_size(), ")"));
    }
    ids.push_back(id);
  }
  std::cout << tokenizer.Decode(ids, /*keep_special=*/true);
  return absl::OkStatus();
}

void AddTokenize(CLI::App& data, int* exit_code) {
  struct Flags {
    data::DatasetOptions options;
    std::string separator = data::CorpusOptions().separator;
    bool is_quiet = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* const command = data.add_subcommand("tokenize", "Turn text files or folders into a dataset folder");
  data::DatasetOptions& o = flags->options;
  command->add_option("--input", o.corpus.inputs, "Text files, .jsonl files, or folders of them")->required();
  command->add_option("--output", o.output, "Folder for the dataset")->required();
  command->add_option("--tokenizer", o.tokenizer, "bytes, bpe (trained on the input), or a tokenizer.json")
      ->capture_default_str();
  command->add_option("--vocab_size", o.vocab_size, "Size of the vocabulary to train")->capture_default_str();
  const std::map<std::string, data::PreTokenizer::Pattern> patterns = {{"gpt2", data::PreTokenizer::Pattern::kGpt2},
                                                                       {"llama3", data::PreTokenizer::Pattern::kLlama3},
                                                                       {"qwen2", data::PreTokenizer::Pattern::kQwen2}};
  command->add_option("--words", o.pattern, "How a trained tokenizer cuts text into words: gpt2, llama3 or qwen2")
      ->transform(CLI::CheckedTransformer(patterns, CLI::ignore_case));
  command->add_option("--validation_fraction", o.validation_fraction, "Share of the text kept for validation, 0 to 0.5")
      ->capture_default_str();
  command->add_option("--seed", o.seed, "Order of the documents and choice of those for validation")
      ->capture_default_str();
  command
      ->add_option("--separator", flags->separator,
                   "Text between documents of a file; \\n and the like are understood; empty: a file is a document")
      ->capture_default_str();
  command->add_option("--text_field", o.corpus.text_field, "Key of the text in .jsonl files")->capture_default_str();
  command->add_option("--shard_tokens", o.shard_tokens, "Tokens in a shard, about")->capture_default_str();
  command->add_flag("--overwrite", o.overwrite, "Replace the dataset in the output folder");
  command->add_flag("--quiet", flags->is_quiet, "No progress");
  command->callback(
      [flags, exit_code] { *exit_code = ExitCode(Tokenize(flags->options, flags->separator, flags->is_quiet)); });
}

void AddSamples(CLI::App& app, int* exit_code) {
  auto options = std::make_shared<data::SampleSetOptions>();
  CLI::App* const command =
      app.add_subcommand("samples", "Turn JSON lines into a sample set, to select from or train on");
  command
      ->add_option("--input", options->inputs,
                   "Files of a JSON object a line: {\"text\"} or {\"prompt\", \"response\"}, and \"id\", \"source\"")
      ->required();
  command->add_option("--output", options->output, "Folder for the set")->required();
  command
      ->add_option("--tokenizer", options->tokenizer,
                   "bytes, a tokenizer.json, or a folder with one (a data set, a model)")
      ->capture_default_str();
  command
      ->add_option("--validation_fraction", options->validation_fraction,
                   "Share of the samples kept for evaluation, 0 to 0.5")
      ->capture_default_str();
  command->add_flag("--overwrite", options->overwrite, "Replace the set in the output folder");
  command->callback([options, exit_code] { *exit_code = ExitCode(MakeSamples(*options)); });
}

}  // namespace

void AddDataCommand(CLI::App& app, int* exit_code) {
  CLI::App* const data = app.add_subcommand("data", "Make and look at token datasets");
  data->require_subcommand(1);
  AddTokenize(*data, exit_code);
  AddSamples(*data, exit_code);

  struct Flags {
    std::string directory, tokenizer, input = "-";
    int sample_tokens = 100;
    bool is_lines = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* const inspect = data->add_subcommand("inspect", "Show a dataset folder and check its digests");
  inspect->add_option("directory", flags->directory, "Dataset folder")->required();
  inspect->add_option("--sample", flags->sample_tokens, "Tokens to show of each split")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  inspect->callback([flags, exit_code] { *exit_code = ExitCode(Inspect(flags->directory, flags->sample_tokens)); });

  CLI::App* const encode = data->add_subcommand("encode", "Print the token ids of a text");
  encode->add_option("--tokenizer", flags->tokenizer, "tokenizer.json")->required();
  encode->add_option("input", flags->input, "Text file, - for stdin")->capture_default_str();
  encode->add_flag("--lines", flags->is_lines, "The input is a JSON string a line; print a line for each");
  encode->callback(
      [flags, exit_code] { *exit_code = ExitCode(Encode(flags->tokenizer, flags->input, flags->is_lines)); });

  CLI::App* const decode = data->add_subcommand("decode", "Print the text of token ids");
  decode->add_option("--tokenizer", flags->tokenizer, "tokenizer.json")->required();
  decode->add_option("input", flags->input, "File of ids, - for stdin")->capture_default_str();
  decode->callback([flags, exit_code] { *exit_code = ExitCode(Decode(flags->tokenizer, flags->input)); });
}

}  // namespace trainyard
