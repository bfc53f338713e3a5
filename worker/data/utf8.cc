#include "worker/data/utf8.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace trainyard::data {
namespace {

struct CodeRange {
  uint32_t first, last;
};

#include "worker/data/unicode_ranges.inc"

template <size_t n>
bool Contains(const CodeRange (&ranges)[n], uint32_t code) {
  const CodeRange* const next = std::upper_bound(std::begin(ranges), std::end(ranges), code,
                                                 [](uint32_t c, const CodeRange& range) { return c < range.first; });
  return next != std::begin(ranges) && code <= std::prev(next)->last;
}

bool IsSpace(uint32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

CharClass Search(uint32_t code) {
  if (IsSpace(code)) return CharClass::kSpace;
  if (Contains(kLetters, code)) return CharClass::kLetter;
  if (Contains(kNumbers, code)) return CharClass::kNumber;
  return CharClass::kOther;
}

// Almost all text lies here.
constexpr uint32_t kTableSize = 0x800;
const std::array<CharClass, kTableSize>& Table() {
  static const std::array<CharClass, kTableSize> table = [] {
    std::array<CharClass, kTableSize> classes;
    for (uint32_t code = 0; code < kTableSize; ++code) classes[code] = Search(code);
    return classes;
  }();
  return table;
}

}  // namespace

CharClass ClassOf(uint32_t code) {
  return code < kTableSize ? Table()[code] : Search(code);
}

Utf8Char CharAt(absl::string_view text, size_t position) {
  const uint8_t lead = static_cast<uint8_t>(text[position]);
  if (lead < 0x80) return {lead, 1, Table()[lead]};
  uint32_t bytes = 0, code = 0, least = 0;
  if ((lead & 0xE0) == 0xC0) {
    bytes = 2, code = lead & 0x1F, least = 0x80;
  } else if ((lead & 0xF0) == 0xE0) {
    bytes = 3, code = lead & 0x0F, least = 0x800;
  } else if ((lead & 0xF8) == 0xF0) {
    bytes = 4, code = lead & 0x07, least = 0x10000;
  } else {
    return {};
  }
  if (position + bytes > text.size()) return {};
  for (uint32_t i = 1; i < bytes; ++i) {
    const uint8_t byte = static_cast<uint8_t>(text[position + i]);
    if ((byte & 0xC0) != 0x80) return {};
    code = (code << 6) | (byte & 0x3F);
  }
  if (code < least || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return {};
  return {code, bytes, ClassOf(code)};
}

void AppendUtf8(uint32_t code, std::string* out) {
  const auto push = [&](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    push(code);
  } else if (code < 0x800) {
    push(0xC0 | (code >> 6)), push(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    push(0xE0 | (code >> 12)), push(0x80 | ((code >> 6) & 0x3F)), push(0x80 | (code & 0x3F));
  } else {
    push(0xF0 | (code >> 18)), push(0x80 | ((code >> 12) & 0x3F));
    push(0x80 | ((code >> 6) & 0x3F)), push(0x80 | (code & 0x3F));
  }
}

}  // namespace trainyard::data
