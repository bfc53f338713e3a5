#include "worker/data/pre_tokenizer.h"

#include <cstdint>

#include "absl/strings/ascii.h"
#include "worker/data/utf8.h"

namespace trainyard::data {
namespace {

bool IsNewline(const Utf8Char& c) {
  return c.code == '\r' || c.code == '\n';
}

// One match at a position of a text. The alternatives of the regular expressions are tried in their order.
class Matcher {
 public:
  explicit Matcher(absl::string_view text) : text_(text) {}

  size_t Gpt2(size_t begin) const {
    if (const size_t end = Contraction(begin, /*any_case=*/false); end != begin) return end;
    const size_t first = SkipSpaceCharacter(begin);
    if (first < text_.size()) {
      const CharClass char_class = CharAt(text_, first).char_class;
      if (char_class != CharClass::kSpace) return RunEnd(first, char_class);
    }
    return Spaces(begin);
  }

  size_t Llama3(size_t begin, int number_length) const {
    if (const size_t end = Contraction(begin, /*any_case=*/true); end != begin) return end;
    const Utf8Char c = CharAt(text_, begin);
    if (c.char_class == CharClass::kLetter) return RunEnd(begin, CharClass::kLetter);
    const size_t second = begin + c.bytes;
    if (c.char_class != CharClass::kNumber && !IsNewline(c) && second < text_.size() &&
        CharAt(text_, second).char_class == CharClass::kLetter) {
      return RunEnd(second, CharClass::kLetter);
    }
    if (c.char_class == CharClass::kNumber) return RunEnd(begin, CharClass::kNumber, number_length);
    const size_t first = SkipSpaceCharacter(begin);
    if (first < text_.size() && CharAt(text_, first).char_class == CharClass::kOther) {
      size_t end = RunEnd(first, CharClass::kOther);
      while (end < text_.size() && (text_[end] == '\r' || text_[end] == '\n')) ++end;
      return end;
    }
    // \s*[\r\n]+ : up to the last line end of the run of spaces.
    size_t after_newline = begin;
    for (size_t i = begin; i < text_.size();) {
      const Utf8Char space = CharAt(text_, i);
      if (space.char_class != CharClass::kSpace) break;
      i += space.bytes;
      if (IsNewline(space)) after_newline = i;
    }
    return after_newline != begin ? after_newline : Spaces(begin);
  }

 private:
  // 's 't 're 've 'm 'll 'd; `begin` if there is none. In any case, also 'ſ: U+017F folds to s.
  size_t Contraction(size_t begin, bool any_case) const {
    if (text_[begin] != '\'') return begin;
    const auto at = [&](size_t i) -> char {
      if (begin + i >= text_.size()) return '\0';
      const char c = text_[begin + i];
      return any_case ? absl::ascii_tolower(static_cast<unsigned char>(c)) : c;
    };
    const char a = at(1), b = at(2);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return begin + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return begin + 3;
    if (any_case && a == '\xC5' && b == '\xBF') return begin + 3;
    return begin;
  }

  size_t SkipSpaceCharacter(size_t begin) const { return text_[begin] == ' ' ? begin + 1 : begin; }

  size_t RunEnd(size_t begin, CharClass char_class, int longest = -1) const {
    size_t end = begin;
    for (int count = 0; end < text_.size() && count != longest; ++count) {
      const Utf8Char c = CharAt(text_, end);
      if (c.char_class != char_class) break;
      end += c.bytes;
    }
    return end;
  }

  // \s+(?!\S)|\s+ : the run of spaces, but for its last one if a word follows and it is not the only one.
  size_t Spaces(size_t begin) const {
    size_t end = begin, last = begin;
    while (end < text_.size()) {
      const Utf8Char c = CharAt(text_, end);
      if (c.char_class != CharClass::kSpace) break;
      last = end;
      end += c.bytes;
    }
    return end == text_.size() || last == begin ? end : last;
  }

  const absl::string_view text_;
};

}  // namespace

absl::string_view RegexOf(PreTokenizer::Pattern pattern) {
  switch (pattern) {
    case PreTokenizer::Pattern::kNone:
      return "";
    case PreTokenizer::Pattern::kGpt2:
      return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
    case PreTokenizer::Pattern::kLlama3:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
             R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
    case PreTokenizer::Pattern::kQwen2:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
             R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
  }
  __builtin_unreachable();
}

bool WordSplitter::Next(absl::string_view* word) {
  if (position_ == text_.size()) return false;
  size_t end = 0;
  if (position_ == limit_ && pre_tokenizer_.split_digits) {
    // The next piece: one numeric character, or all up to the next one.
    limit_ = position_;
    while (limit_ < text_.size()) {
      const Utf8Char c = CharAt(text_, limit_);
      if (c.char_class == CharClass::kNumber) {
        if (limit_ == position_) limit_ += c.bytes;
        break;
      }
      limit_ += c.bytes;
    }
  } else if (position_ == limit_) {
    limit_ = text_.size();
  }
  const Matcher matcher(text_.substr(0, limit_));
  switch (pre_tokenizer_.pattern) {
    case PreTokenizer::Pattern::kNone:
      end = limit_;
      break;
    case PreTokenizer::Pattern::kGpt2:
      end = matcher.Gpt2(position_);
      break;
    case PreTokenizer::Pattern::kLlama3:
      end = matcher.Llama3(position_, 3);
      break;
    case PreTokenizer::Pattern::kQwen2:
      end = matcher.Llama3(position_, 1);
      break;
  }
  *word = text_.substr(position_, end - position_);
  position_ = end;
  return true;
}

}  // namespace trainyard::data
