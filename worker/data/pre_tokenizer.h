// Splitting text into words before BPE, by hand-written matchers for the regular expressions that byte-level
// tokenizers use. No input is lost: the words joined are the text.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace trainyard::data {

// Bytes that are not UTF-8 count as one character each that is no letter, number or space.
struct PreTokenizer {
  enum class Pattern {
    kNone,    // no split: ByteLevel with use_regex = false
    kGpt2,    // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    kLlama3,  // (?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
    kQwen2,   // as kLlama3 with \p{N} for \p{N}{1,3}
  };
  Pattern pattern = Pattern::kGpt2;
  // First cuts out every numeric character as a word of its own (the `Digits` pre-tokenizer with individual_digits).
  bool split_digits = false;
};

// The regular expression of a pattern as tokenizer.json spells it; empty for kNone.
absl::string_view RegexOf(PreTokenizer::Pattern pattern);

// The words of one text, one after another.
class WordSplitter {
 public:
  WordSplitter(const PreTokenizer& pre_tokenizer, absl::string_view text)
      : pre_tokenizer_(pre_tokenizer), text_(text), limit_(0) {}

  // False at the end of the text.
  bool Next(absl::string_view* word);

 private:
  const PreTokenizer pre_tokenizer_;
  const absl::string_view text_;
  size_t position_ = 0;
  size_t limit_;  // end of the piece that split_digits left whole
};

}  // namespace trainyard::data
