#include "worker/data/sample_set_builder.h"

#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/data/tokenizer.h"

namespace trainyard::data {
namespace {

using Json = nlohmann::json;

absl::StatusOr<Tokenizer> LoadTokenizer(const std::string& name) {
  if (name == "bytes") return Tokenizer::Bytes();
  const std::string in_folder = TokenizerPath(name);
  return Tokenizer::Load(FileExists(in_folder) ? in_folder : name);
}

// One line's fields. The pointers are null where a field is missing.
struct Line {
  std::string id, source;
  bool has_prompt = false;
  std::string prompt, text;  // text: the text or the response
};

// "" or what is wrong.
std::string ParseLine(absl::string_view text, Line* line) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return "is not a JSON object";
  std::string problem;
  const auto read = [&](const char* field, std::string* out) {
    const auto found = json.find(field);
    if (found == json.end()) return false;
    if (found->is_string()) {
      *out = found->get<std::string>();
    } else if (found->is_number_integer() && std::string(field) == "id") {
      *out = found->dump();
    } else {
      problem = absl::StrCat("\"", field, "\" is not a string");
    }
    return true;
  };
  read("id", &line->id);
  read("source", &line->source);
  const bool has_text = read("text", &line->text);
  line->has_prompt = read("prompt", &line->prompt);
  const bool has_response = json.contains("response");
  if (has_text && (line->has_prompt || has_response)) return "has \"text\" and \"prompt\" or \"response\"";
  if (!has_text && !(line->has_prompt && has_response)) return "has neither \"text\" nor \"prompt\" and \"response\"";
  if (has_response) read("response", &line->text);
  return problem;
}

// A number in [0, 1) that follows from the id.
double ShareOf(const std::string& id) {
  const std::string digest = DigestOf(absl::StrCat("validation ", id)).substr(0, 13);
  return static_cast<double>(std::strtoll(digest.c_str(), nullptr, 16)) * 0x1p-52;
}

class Builder {
 public:
  Builder(const SampleSetOptions& options, const Tokenizer& tokenizer, SampleSetWriter writer)
      : options_(options), tokenizer_(tokenizer), encoder_(tokenizer), writer_(std::move(writer)) {}

  absl::Status AddFile(const std::string& path) {
    TY_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
    int64_t number = 0;
    std::vector<absl::string_view> lines = absl::StrSplit(content, '\n');
    if (!lines.empty() && lines.back().empty()) lines.pop_back();  // behind the last line end
    for (absl::string_view text : lines) {
      ++number;
      if (absl::StripAsciiWhitespace(text).empty()) {
        ++report_.empty_line_count;
        continue;
      }
      Line line;
      std::string problem = ParseLine(text, &line);
      if (problem.empty()) problem = std::string(AddLine(std::move(line)).message());
      if (problem.empty()) continue;
      ++report_.damaged_count;
      if (report_.damaged.size() < kMostDamagedLines) {
        report_.damaged.push_back(absl::StrCat(path, ":", number, ": ", problem));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<SampleSetReport> Finish() {
    if (writer_.size() == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "there is no sample in the input", report_.damaged.empty() ? "" : absl::StrCat("; ", report_.damaged[0])));
    }
    TY_ASSIGN_OR_RETURN(report_.info, writer_.Finish({}));
    return std::move(report_);
  }

 private:
  absl::Status AddLine(Line line) {
    SampleRecord record;
    std::vector<int32_t> tokens;
    if (line.has_prompt) encoder_.Encode(line.prompt, /*parse_added=*/false, &tokens);
    record.label_begin = std::max<int64_t>(1, static_cast<int64_t>(tokens.size()));
    encoder_.Encode(line.text, /*parse_added=*/false, &tokens);
    if (!line.text.empty() && tokenizer_.end_of_text_id() >= 0) tokens.push_back(tokenizer_.end_of_text_id());
    record.source = line.source;
    record.id = line.id;
    if (record.id.empty()) {
      record.id = DigestOf(absl::StrCat(line.source, "\n", line.prompt.size(), "\n", line.prompt, line.text));
      if (const int copies = ++copies_[record.id]; copies > 1) absl::StrAppend(&record.id, "-", copies);
    }
    if (ShareOf(record.id) < options_.validation_fraction) record.split = Split::kValidation;
    const bool is_validation = record.split == Split::kValidation;
    TY_RETURN_IF_ERROR(writer_.Add(std::move(record), tokens));
    if (is_validation) ++report_.validation_count;
    return absl::OkStatus();
  }

  const SampleSetOptions& options_;
  const Tokenizer& tokenizer_;
  Encoder encoder_;
  SampleSetWriter writer_;
  SampleSetReport report_;
  std::map<std::string, int> copies_;
};

}  // namespace

absl::StatusOr<SampleSetReport> BuildSampleSet(const SampleSetOptions& options) {
  if (options.inputs.empty()) return absl::InvalidArgumentError("input: give at least one file");
  if (!(options.validation_fraction >= 0 && options.validation_fraction <= 0.5)) {
    return absl::InvalidArgumentError(
        absl::StrCat("validation_fraction: ", options.validation_fraction, " not in [0, 0.5]"));
  }
  if (FileExists(JoinPath(options.output, "samples.json")) && !options.overwrite) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.output, ": holds a sample set; give --overwrite to replace it"));
  }
  TY_ASSIGN_OR_RETURN(const Tokenizer tokenizer, LoadTokenizer(options.tokenizer));
  TY_ASSIGN_OR_RETURN(SampleSetWriter writer, SampleSetWriter::Create(options.output, tokenizer.vocab_size(),
                                                                      tokenizer.end_of_text_id(), tokenizer.ToJson()));
  Builder builder(options, tokenizer, std::move(writer));
  for (const std::string& path : options.inputs) TY_RETURN_IF_ERROR(builder.AddFile(path));
  return builder.Finish();
}

}  // namespace trainyard::data
