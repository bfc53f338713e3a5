// UTF-8 characters and the three classes that pre-tokenizers ask for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace trainyard::data {

enum class CharClass : uint8_t {
  kLetter,  // \p{L}
  kNumber,  // \p{N}
  kSpace,   // \s: White_Space
  kOther,
};

struct Utf8Char {
  uint32_t code = 0;  // meaningless for a byte that starts no character
  uint32_t bytes = 1;
  CharClass char_class = CharClass::kOther;
};

// The character at text[position], position < size. A byte that starts no well-formed character (Unicode 16, table
// 3-7: no overlong forms, no surrogates) is one character of class kOther.
Utf8Char CharAt(absl::string_view text, size_t position);

CharClass ClassOf(uint32_t code);

void AppendUtf8(uint32_t code, std::string* out);

}  // namespace trainyard::data
