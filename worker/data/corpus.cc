#include "worker/data/corpus.h"

#include <sys/stat.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::data {
namespace {

using Json = nlohmann::json;

constexpr size_t kMappedBytes = size_t{1} << 18;
constexpr int kDeepestFolder = 32;  // a folder that links to its parent must not be endless

bool IsJsonLines(absl::string_view path) {
  return absl::EndsWith(path, ".jsonl") || absl::EndsWith(path, ".ndjson");
}

bool IsText(absl::string_view path) {
  return IsJsonLines(path) || absl::EndsWith(path, ".txt") || absl::EndsWith(path, ".text") ||
         absl::EndsWith(path, ".md");
}

absl::StatusOr<bool> IsFolder(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "open", path);
  return S_ISDIR(info.st_mode);
}

absl::Status ListTexts(const std::string& directory, int depth, std::vector<std::string>* paths) {
  TY_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(directory));
  for (const std::string& name : names) {
    if (name[0] == '.') continue;
    const std::string path = JoinPath(directory, name);
    const absl::StatusOr<bool> is_folder = IsFolder(path);
    if (!is_folder.ok()) continue;  // a dangling link
    if (*is_folder && depth < kDeepestFolder) TY_RETURN_IF_ERROR(ListTexts(path, depth + 1, paths));
    if (!*is_folder && IsText(name)) paths->push_back(path);
  }
  return absl::OkStatus();
}

// The text of a line of JSON; the error says what is wrong with it.
absl::StatusOr<std::string> TextOfLine(absl::string_view line, const std::string& field) {
  Json json = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("is not a JSON object");
  const auto found = json.find(field);
  if (found == json.end() || !found->is_string()) {
    return absl::InvalidArgumentError(absl::StrCat("has no string \"", field, "\""));
  }
  return std::move(found->get_ref<std::string&>());
}

}  // namespace

absl::StatusOr<Corpus> Corpus::Open(const CorpusOptions& options) {
  Corpus corpus;
  corpus.text_field_ = options.text_field;
  for (const std::string& input : options.inputs) {
    TY_ASSIGN_OR_RETURN(const bool is_folder, IsFolder(input));
    std::vector<std::string> paths;
    if (is_folder) {
      TY_RETURN_IF_ERROR(ListTexts(input, 0, &paths));
      if (paths.empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat(input, ": no .txt, .text, .md, .jsonl or .ndjson file is in this folder"));
      }
    } else {
      paths.push_back(input);
    }
    for (const std::string& path : paths) TY_RETURN_IF_ERROR(corpus.AddFile(path, options));
  }
  if (corpus.documents_.empty()) return absl::InvalidArgumentError("the inputs hold no text");
  return corpus;
}

absl::Status Corpus::AddFile(const std::string& path, const CorpusOptions& options) {
  TY_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  const uint32_t file = static_cast<uint32_t>(files_.size());
  File& source = files_.emplace_back();
  if (mapped.size() < kMappedBytes) {
    source.content = std::string(mapped.text());
  } else {
    source.mapped = std::move(mapped);
  }
  if (IsJsonLines(path)) return AddJsonLines(file, path);
  const absl::string_view text = files_.back().text();
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = options.separator.empty() ? absl::string_view::npos : text.find(options.separator, begin);
    if (end == absl::string_view::npos) end = text.size();
    if (end > begin) {
      documents_.push_back({file, false, static_cast<int64_t>(begin), static_cast<int64_t>(end - begin)});
    }
    begin = end;
    if (end < text.size()) {
      begin += options.separator.size();
      if (begin < text.size() && text[begin] == '\n') ++begin;
    }
  }
  return absl::OkStatus();
}

absl::Status Corpus::AddJsonLines(uint32_t file, const std::string& path) {
  const absl::string_view text = files_[file].text();
  int64_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const absl::string_view line = absl::StripSuffix(text.substr(begin, end - begin), "\r");
    ++line_number;
    if (!line.empty()) {
      const absl::StatusOr<std::string> document = TextOfLine(line, text_field_);
      TY_RETURN_IF_ERROR(Annotate(document.status(), absl::StrCat(path, ":", line_number)));
      if (!document->empty()) {
        documents_.push_back({file, true, static_cast<int64_t>(begin), static_cast<int64_t>(line.size())});
      }
    }
    begin = end + 1;
  }
  return absl::OkStatus();
}

int64_t Corpus::total_bytes() const {
  int64_t sum = 0;
  for (const Place& place : documents_) sum += place.bytes;
  return sum;
}

absl::string_view Corpus::Document(int64_t i, std::string* scratch) const {
  const Place& place = documents_[static_cast<size_t>(i)];
  const absl::string_view bytes =
      files_[place.file].text().substr(static_cast<size_t>(place.begin), static_cast<size_t>(place.bytes));
  if (!place.is_json) return bytes;
  absl::StatusOr<std::string> text = TextOfLine(bytes, text_field_);
  TY_CHECK_OK(text);  // Open has parsed this line
  *scratch = *std::move(text);
  return *scratch;
}

}  // namespace trainyard::data
