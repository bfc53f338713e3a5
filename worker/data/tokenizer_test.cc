#include "worker/data/tokenizer.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"

namespace trainyard::data {
namespace {

using ::absl::StatusCode;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string RandomBytes(size_t size, uint32_t state) {
  std::string bytes;
  for (size_t i = 0; i < size; ++i) {
    state = state * 1664525 + 1013904223;
    bytes.push_back(static_cast<char>(state >> 24));
  }
  return bytes;
}

// Bytes plus the merges named by their text, in order.
Tokenizer WithMerges(const std::vector<std::pair<std::string, std::string>>& merges) {
  TokenizerParts parts = Tokenizer::Bytes().parts();
  const auto id_of = [&](const std::string& token) {
    const auto found = std::find(parts.tokens.begin(), parts.tokens.end(), token);
    TY_CHECK(found != parts.tokens.end());
    return static_cast<int32_t>(found - parts.tokens.begin());
  };
  for (const auto& [left, right] : merges) {
    parts.merges.emplace_back(id_of(left), id_of(right));
    parts.tokens.push_back(left + right);
  }
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(std::move(parts));
  TY_CHECK_OK(tokenizer);
  return std::move(tokenizer).value();
}

// The fixtures were made by tests/golden/tokenizer_parity.py --write_golden: tokenizers trained and run by Hugging
// Face's `tokenizers` 0.23.3. The texts are mixtures of spaces, quotes, digits, scripts and added tokens.
TEST(TokenizerTest, EncodesAsTheReferenceDoes) {
  for (const std::string name : {"gpt2", "llama3"}) {
    const std::string prefix = absl::StrCat("worker/data/testdata/", name);
    ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer, Tokenizer::Load(prefix + ".tokenizer.json"));
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(prefix + ".expected.json"));
    const nlohmann::json cases = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    ASSERT_GT(cases.size(), 50u);
    Encoder encoder(tokenizer);  // with its cache warm from the texts before
    for (const nlohmann::json& c : cases) {
      const std::string input = c["text"].get<std::string>();
      const std::vector<int32_t> expected = c["ids"].get<std::vector<int32_t>>();
      EXPECT_EQ(tokenizer.Encode(input), expected) << name << ": " << c["text"];
      std::vector<int32_t> ids;
      encoder.Encode(input, /*parse_added=*/true, &ids);
      EXPECT_EQ(ids, expected);
      EXPECT_EQ(tokenizer.Decode(ids, /*keep_special=*/true), input);
    }
  }
}

TEST(TokenizerTest, AnyBytesComeBack) {
  const Tokenizer merges = WithMerges({{"a", "b"}, {"\xFF", std::string(1, '\0')}, {"e", " "}});
  for (const Tokenizer& tokenizer : {Tokenizer::Bytes(), merges}) {
    for (const size_t size : {0, 1, 2, 100, 50000}) {
      const std::string bytes = RandomBytes(size, static_cast<uint32_t>(size));
      EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(bytes)), bytes);
    }
  }
}

TEST(TokenizerTest, BytesAreTheirOwnIds) {
  const Tokenizer tokenizer = Tokenizer::Bytes();
  EXPECT_EQ(tokenizer.vocab_size(), 257);
  EXPECT_EQ(tokenizer.end_of_text_id(), 256);
  EXPECT_THAT(tokenizer.Encode("A\xC3\xA9"), ElementsAre(65, 0xC3, 0xA9));
}

TEST(TokenizerTest, MergesGoByRankThenFromTheLeft) {
  // 257 = bc, 258 = ab, 259 = abc (from ab + c): "abc" becomes a + bc, since bc ranks first.
  const Tokenizer tokenizer = WithMerges({{"b", "c"}, {"a", "b"}, {"ab", "c"}});
  EXPECT_THAT(tokenizer.Encode("abc"), ElementsAre('a', 257));
  EXPECT_THAT(tokenizer.Encode("ab"), ElementsAre(258));
  const Tokenizer pairs = WithMerges({{"a", "a"}});
  EXPECT_THAT(pairs.Encode("aaaaa"), ElementsAre(257, 257, 'a'));
}

TEST(TokenizerTest, LongWordsMergeAsShortOnesDo) {
  // A word longer than the limit of the simple loop, made of parts that merge on their own: spaces between the parts
  // would make the same tokens, so the two loops must agree.
  const Tokenizer tokenizer = WithMerges({{"a", "b"}, {"ab", "ab"}, {"c", "abab"}, {"cabab", "d"}});
  std::string word, expected_text;
  std::vector<int32_t> expected;
  for (int i = 0; i < 500; ++i) {
    const std::string part = i % 3 == 0 ? "cababd" : (i % 3 == 1 ? "dcab" : "xabcba");
    word += part;
    for (int32_t id : tokenizer.Encode(part)) expected.push_back(id);
  }
  EXPECT_EQ(tokenizer.Encode(word), expected);
  // A megabyte without a space takes no quadratic time; a slow loop would run into the test's limit.
  EXPECT_EQ(tokenizer.Encode(std::string(1000000, 'a')).size(), 1000000u);
}

TEST(TokenizerTest, AddedTokensAreFoundOnlyWhenAskedFor) {
  const Tokenizer tokenizer = Tokenizer::Bytes();
  EXPECT_THAT(tokenizer.Encode("a<|endoftext|>b"), ElementsAre('a', 256, 'b'));
  std::vector<int32_t> ids;
  Encoder(tokenizer).Encode("<|endoftext|>", /*parse_added=*/false, &ids);
  EXPECT_EQ(ids.size(), 13u);
  EXPECT_EQ(tokenizer.Decode({'a', 256, 'b'}), "ab");
  EXPECT_EQ(tokenizer.Decode({'a', 256, 'b', -1, 257}, true), "a<|endoftext|>b");
}

TEST(TokenizerTest, SavedFilesLoadAsTheSame) {
  TempDir dir;
  for (const auto pattern : {PreTokenizer::Pattern::kNone, PreTokenizer::Pattern::kGpt2, PreTokenizer::Pattern::kLlama3,
                             PreTokenizer::Pattern::kQwen2}) {
    for (const bool split_digits : {false, true}) {
      TokenizerParts parts = WithMerges({{" ", "a"}, {"\n", "\n"}, {" a", "\xC3"}}).parts();
      parts.pre_tokenizer = {pattern, split_digits};
      parts.ignore_merges = split_digits;
      ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer, Tokenizer::Create(parts));
      ASSERT_OK(tokenizer.Save(dir.Join("tokenizer.json")));
      ASSERT_OK_AND_ASSIGN(const Tokenizer loaded, Tokenizer::Load(dir.Join("tokenizer.json")));
      EXPECT_EQ(loaded.parts().tokens, parts.tokens);
      EXPECT_EQ(loaded.parts().merges, parts.merges);
      EXPECT_EQ(loaded.parts().pre_tokenizer.pattern, pattern);
      EXPECT_EQ(loaded.parts().pre_tokenizer.split_digits, split_digits);
      EXPECT_EQ(loaded.parts().ignore_merges, split_digits);
      EXPECT_EQ(loaded.end_of_text_id(), 256);
      EXPECT_EQ(loaded.ToJson(), tokenizer.ToJson());
    }
  }
}

TEST(TokenizerTest, KindsWeDoNotHaveAreRefusedByName) {
  const std::string good = WithMerges({{"a", "b"}}).ToJson();
  struct Case {
    const char *from, *to, *message;
  };
  const Case cases[] = {
      {R"("normalizer": null)", R"("normalizer": {"type": "NFC"})", "normalizer: only null is supported, not \"NFC\""},
      {R"("type": "BPE")", R"("type": "WordPiece")", "model.type: \"WordPiece\" is not BPE"},
      {R"("byte_fallback": false)", R"("byte_fallback": true)", "byte_fallback"},
      {R"("end_of_word_suffix": null)", R"("end_of_word_suffix": "</w>")", "</w>"},
      {R"("add_prefix_space": false)", R"("add_prefix_space": true)", "add_prefix_space"},
      {R"("pre_tokenizer": {)", R"("pre_tokenizer": {"type": "Metaspace"}, "x": {)", "is not byte-level"},
      {R"("lstrip": false)", R"("lstrip": true)", "added_tokens[0].lstrip"},
      {R"("ab": 257)", R"("ab": 3)", "id 3 is given twice"},
      {R"("ab": 257)", R"("ab": -3)", "-3 is not an id"},
      {R"("ab": 257)", R"("zz": 257)", "merge 0: \"ab\" is no token"},
      {R"("ab": 257)", R"("a b": 257)", "not written in the byte-level alphabet"},
      {R"("a": 97,)", "", "model.merges[0]: \"a\" is no token"},
      {R"("z": 122,)", "", "byte 122 has no token"},
      {R"("merges")", R"("mergers")", "model.merges: is not a list"},
      {"{", "[", "is not JSON"},
  };
  for (const Case& c : cases) {
    std::string json = good;
    const size_t at = json.find(c.from);
    ASSERT_NE(at, std::string::npos) << c.from;
    json.replace(at, std::string(c.from).size(), c.to);
    EXPECT_THAT(Tokenizer::FromJson(json, "t.json"),
                StatusIs(StatusCode::kInvalidArgument, AllOf(HasSubstr("t.json"), HasSubstr(c.message))))
        << c.from;
  }
}

TEST(TokenizerTest, NoCutOrDamagedFileCrashes) {
  const std::string good = WithMerges({{"a", "b"}, {"ab", "ab"}}).ToJson();
  for (size_t size = 0; size + 2 < good.size(); size += 13) {
    EXPECT_FALSE(Tokenizer::FromJson(good.substr(0, size), "t").ok()) << size;
  }
  for (size_t i = 0; i < good.size(); i += 7) {
    std::string damaged = good;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x15);
    const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::FromJson(damaged, "t");
    if (!tokenizer.ok()) continue;
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("abab"), true), "abab");
  }
}

}  // namespace
}  // namespace trainyard::data
