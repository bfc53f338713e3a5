// Text files, as documents that can be read in any order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/mapped_file.h"

namespace trainyard::data {

struct CorpusOptions {
  // Files, and folders: of a folder, all .txt, .text, .md, .jsonl and .ndjson files below it, in the order of their
  // names, without hidden ones. A file named here is read whatever it is called.
  std::vector<std::string> inputs;
  // Splits each text file into documents wherever it stands, and is in none of them, nor is one line end right after
  // it. (Published corpora spell the end-of-text token there.) Empty: a file is one document.
  std::string separator = "<|endoftext|>";
  // In .jsonl and .ndjson files each line is an object, and the string under this key a document.
  std::string text_field = "text";
};

// Maps the files (small ones are read: a process may have only so many maps) and keeps where each document lies. Empty
// documents are left out. Safe from any thread.
class Corpus {
 public:
  // NotFound for an input that is not there, InvalidArgument for a folder without texts, a corpus without a document,
  // and, as "file:line: ...", for lines of JSON that are none.
  static absl::StatusOr<Corpus> Open(const CorpusOptions& options);

  int64_t size() const { return static_cast<int64_t>(documents_.size()); }
  int64_t file_count() const { return static_cast<int64_t>(files_.size()); }
  // Bytes of document i: exact for text, those of the line for JSON (a measure of size only).
  int64_t bytes(int64_t i) const { return documents_[static_cast<size_t>(i)].bytes; }
  int64_t total_bytes() const;

  // The text; it may lie in *scratch.
  absl::string_view Document(int64_t i, std::string* scratch) const;

 private:
  struct File {
    std::optional<MappedFile> mapped;
    std::string content;  // if not mapped
    absl::string_view text() const { return mapped.has_value() ? mapped->text() : absl::string_view(content); }
  };
  struct Place {
    uint32_t file;
    bool is_json;
    int64_t begin, bytes;
  };
  absl::Status AddFile(const std::string& path, const CorpusOptions& options);
  absl::Status AddJsonLines(uint32_t file, const std::string& path);

  std::string text_field_;
  std::vector<File> files_;
  std::vector<Place> documents_;
};

}  // namespace trainyard::data
