#include "worker/data/pre_tokenizer.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/data/utf8.h"

namespace trainyard::data {
namespace {

using ::testing::ElementsAre;
using Pattern = PreTokenizer::Pattern;

std::vector<std::string> Words(Pattern pattern, absl::string_view text, bool split_digits = false) {
  WordSplitter splitter({.pattern = pattern, .split_digits = split_digits}, text);
  std::vector<std::string> words;
  absl::string_view word;
  while (splitter.Next(&word)) words.emplace_back(word);
  return words;
}

// tests/golden/tokenizer_parity.py compares with the library on every code point; here are the rules one by one.
TEST(PreTokenizerTest, Gpt2) {
  EXPECT_THAT(Words(Pattern::kGpt2, "It's we'll 'RE"), ElementsAre("It", "'s", " we", "'ll", " '", "RE"));
  EXPECT_THAT(Words(Pattern::kGpt2, "a  b\n\nc "), ElementsAre("a", " ", " b", "\n", "\n", "c", " "));
  EXPECT_THAT(Words(Pattern::kGpt2, "x = 12.50!!"), ElementsAre("x", " =", " 12", ".", "50", "!!"));
  EXPECT_THAT(Words(Pattern::kGpt2, "   "), ElementsAre("   "));
  EXPECT_THAT(Words(Pattern::kGpt2, "été 中文² \u00a0z"), ElementsAre("été", " 中文", "²", " ", "\u00a0", "z"));
  EXPECT_THAT(Words(Pattern::kGpt2, ""), ElementsAre());
}

TEST(PreTokenizerTest, Llama3) {
  EXPECT_THAT(Words(Pattern::kLlama3, "It'S we'Ll"), ElementsAre("It", "'S", " we", "'Ll"));
  EXPECT_THAT(Words(Pattern::kLlama3, "12345 (hello)\n\n  x"),
              ElementsAre("123", "45", " (", "hello", ")\n\n", " ", " x"));
  EXPECT_THAT(Words(Pattern::kLlama3, "a \n \n  b"), ElementsAre("a", " \n \n", " ", " b"));
  EXPECT_THAT(Words(Pattern::kLlama3, "\tword \"word"), ElementsAre("\tword", " \"", "word"));
  EXPECT_THAT(Words(Pattern::kLlama3, "a'\u017fb"), ElementsAre("a", "'\u017f", "b"));
  EXPECT_THAT(Words(Pattern::kLlama3, "  7"), ElementsAre(" ", " ", "7"));
}

TEST(PreTokenizerTest, Qwen2TakesNumbersOneByOne) {
  EXPECT_THAT(Words(Pattern::kQwen2, "a12"), ElementsAre("a", "1", "2"));
}

TEST(PreTokenizerTest, SplitDigitsCutsBeforeThePatternSeesThem) {
  EXPECT_THAT(Words(Pattern::kGpt2, "a  12 b", true), ElementsAre("a", "  ", "1", "2", " b"));
  EXPECT_THAT(Words(Pattern::kNone, "a b", false), ElementsAre("a b"));
}

TEST(PreTokenizerTest, BytesThatAreNotUtf8AreKept) {
  for (const auto pattern : {Pattern::kNone, Pattern::kGpt2, Pattern::kLlama3, Pattern::kQwen2}) {
    for (const bool split_digits : {false, true}) {
      std::string text;
      uint32_t state = 1;
      for (int i = 0; i < 20000; ++i) {
        state = state * 1664525 + 1013904223;
        text.push_back(static_cast<char>(state >> 24));
      }
      std::string joined;
      for (const std::string& word : Words(pattern, text, split_digits)) {
        ASSERT_FALSE(word.empty());
        joined += word;
      }
      EXPECT_EQ(joined, text);
    }
  }
}

TEST(Utf8Test, RefusesWhatIsNotWellFormed) {
  for (const std::string bad :
       {"\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF8", "\x80", "\xC3", "\xE4\xB8", "\xC3("}) {
    EXPECT_EQ(CharAt(bad, 0).bytes, 1u);
    EXPECT_EQ(CharAt(bad, 0).char_class, CharClass::kOther);
  }
  for (const uint32_t code : {0x7Fu, 0x80u, 0x7FFu, 0x800u, 0xFFFFu, 0x10000u, 0x10FFFFu}) {
    std::string text;
    AppendUtf8(code, &text);
    EXPECT_EQ(CharAt(text, 0).code, code);
    EXPECT_EQ(CharAt(text, 0).bytes, text.size());
  }
  EXPECT_EQ(ClassOf('a'), CharClass::kLetter);
  EXPECT_EQ(ClassOf(0x2167), CharClass::kNumber);   // roman numeral eight
  EXPECT_EQ(ClassOf(0x3000), CharClass::kSpace);    // ideographic space
  EXPECT_EQ(ClassOf(0x200B), CharClass::kOther);    // zero width space is no White_Space
  EXPECT_EQ(ClassOf(0x323AF), CharClass::kLetter);  // the last range
}

}  // namespace
}  // namespace trainyard::data
