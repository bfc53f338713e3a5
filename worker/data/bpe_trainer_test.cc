#include "worker/data/bpe_trainer.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace trainyard::data {
namespace {

using ::absl::StatusCode;
using ::testing::HasSubstr;

Tokenizer Train(const std::vector<std::string>& documents, int32_t vocab_size, int64_t min_count = 2) {
  BpeTrainer trainer({.vocab_size = vocab_size, .min_count = min_count});
  for (const std::string& document : documents) trainer.Add(document);
  absl::StatusOr<Tokenizer> tokenizer = trainer.Train();
  TY_CHECK_OK(tokenizer);
  return std::move(tokenizer).value();
}

std::vector<std::string> Learned(const Tokenizer& tokenizer) {
  return {tokenizer.parts().tokens.begin() + 257, tokenizer.parts().tokens.end()};
}

// The algorithm with no data structure: recounts everything for every merge.
std::vector<std::pair<int32_t, int32_t>> SlowMerges(const std::string& text, size_t merges) {
  std::map<std::string, int64_t> counts;
  WordSplitter splitter({}, text);
  absl::string_view view;
  while (splitter.Next(&view)) ++counts[std::string(view)];
  std::vector<std::pair<std::vector<int32_t>, int64_t>> words;
  for (const auto& [word, count] : counts) {
    std::vector<int32_t> symbols;
    for (char byte : word) symbols.push_back(static_cast<uint8_t>(byte));
    words.emplace_back(symbols, count);
  }
  std::vector<std::string> tokens = Tokenizer::Bytes().parts().tokens;
  tokens[256] = "";
  std::vector<std::pair<int32_t, int32_t>> learned;
  while (learned.size() < merges) {
    std::map<std::pair<int32_t, int32_t>, int64_t> pairs;
    for (const auto& [symbols, count] : words) {
      for (size_t i = 0; i + 1 < symbols.size(); ++i) pairs[{symbols[i], symbols[i + 1]}] += count;
    }
    std::pair<int32_t, int32_t> best;
    int64_t best_count = 1;
    for (const auto& [pair, count] : pairs) {
      if (count > best_count) best = pair, best_count = count;  // of equals the first, which has the smaller ids
    }
    if (best_count == 1) break;
    learned.push_back(best);
    const std::string token = tokens[static_cast<size_t>(best.first)] + tokens[static_cast<size_t>(best.second)];
    const auto known = std::find(tokens.begin(), tokens.end(), token);
    const int32_t id = static_cast<int32_t>(known - tokens.begin());
    if (known == tokens.end()) tokens.push_back(token);
    for (auto& [symbols, count] : words) {
      std::vector<int32_t> merged;
      for (size_t i = 0; i < symbols.size(); ++i) {
        if (i + 1 < symbols.size() && symbols[i] == best.first && symbols[i + 1] == best.second) {
          merged.push_back(id);
          ++i;
        } else {
          merged.push_back(symbols[i]);
        }
      }
      symbols = merged;
    }
  }
  return learned;
}

// Sennrich et al., section 3.2: {'low', 'lowest', 'newer', 'wider'} learns r-end, l-o, lo-w, e-r; here over bytes with
// the counts of figure 1 of the same paper (low 5, lower 2, newest 6, widest 3) and no end-of-word symbol.
TEST(BpeTrainerTest, ThePapersExample) {
  std::string text;
  for (int i = 0; i < 5; ++i) text += "low\t";
  for (int i = 0; i < 2; ++i) text += "lower\t";
  for (int i = 0; i < 6; ++i) text += "newest\t";
  for (int i = 0; i < 3; ++i) text += "widest\t";
  // es and st are in 9 words, as is est after the first; then lo (7) and low.
  EXPECT_EQ(Learned(Train({text}, 257 + 4)), (std::vector<std::string>{"es", "est", "lo", "low"}));
}

TEST(BpeTrainerTest, EqualsTheDefinitionOnRandomText) {
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    std::string text;
    uint32_t state = seed;
    for (int i = 0; i < 600; ++i) {  // few letters: many ties, overlaps (aaaa) and tokens spelled in two ways
      state = state * 1664525 + 1013904223;
      text.push_back("aaabbc "[(state >> 24) % 7]);
    }
    const Tokenizer tokenizer = Train({text}, 257 + 60);
    const size_t merges = tokenizer.parts().merges.size();
    ASSERT_GE(merges, 40u);
    EXPECT_EQ(tokenizer.parts().merges, SlowMerges(text, merges)) << seed;
    EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text)), text);
  }
}

TEST(BpeTrainerTest, OrderOfDocumentsDoesNotMatter) {
  std::vector<std::string> documents;
  for (int i = 0; i < 200; ++i) documents.push_back(absl::StrCat("number ", i * 37 % 101, " of the words ", i % 7));
  const std::string json = Train(documents, 400).ToJson();
  std::reverse(documents.begin(), documents.end());
  EXPECT_EQ(Train(documents, 400).ToJson(), json);
}

TEST(BpeTrainerTest, StopsWhenNothingIsFrequentEnough) {
  EXPECT_EQ(Train({"abc abc xyz"}, 4096).vocab_size(), 257 + 2);  // ab, abc
  EXPECT_EQ(Train({"abc abc xyz"}, 4096, 3).vocab_size(), 257);
  EXPECT_EQ(Train({}, 4096).vocab_size(), 257);
}

TEST(BpeTrainerTest, RefusesSizesOutOfRange) {
  for (const int32_t size : {-1, 256, (1 << 24) + 1}) {
    EXPECT_THAT(BpeTrainer({.vocab_size = size}).Train(),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr(absl::StrCat("vocab_size: ", size))));
  }
  EXPECT_OK(BpeTrainer({.vocab_size = 257}).Train());
}

}  // namespace
}  // namespace trainyard::data
