#include "worker/data/dataset_builder.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "worker/data/tokenizer.h"

namespace trainyard::data {
namespace {

using ::absl::StatusCode;
using ::testing::HasSubstr;

class DatasetBuilderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 100; ++i) absl::StrAppend(&text, Document(i), "<|endoftext|>");
    ASSERT_OK(WriteFileAtomic(dir_.Join("text.txt"), text));
  }
  static std::string Document(int i) { return absl::StrCat("This is document ", 100 + i, " of a hundred.\n"); }

  DatasetOptions Options(const std::string& output) const {
    return {.corpus = {.inputs = {dir_.Join("text.txt")}},
            .output = dir_.Join(output),
            .tokenizer = "bytes",
            .validation_fraction = 0.1,
            .seed = 5,
            .progress = nullptr};
  }
  // All tokens of a split as text; documents end with the spelled-out token.
  std::string Text(const DatasetOptions& options, const DatasetInfo& info, Split split) {
    const absl::StatusOr<std::vector<TokenShard>> shards = OpenShards(options.output, info, split);
    const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(TokenizerPath(options.output));
    EXPECT_OK(shards);
    EXPECT_OK(tokenizer);
    std::string text;
    for (const TokenShard& shard : *shards) {
      EXPECT_OK(shard.Verify());
      std::vector<int32_t> tokens(static_cast<size_t>(shard.info().token_count));
      shard.Copy(0, shard.info().token_count, tokens.data());
      text += tokenizer->Decode(tokens, /*keep_special=*/true);
    }
    return text;
  }
  static std::vector<std::string> DocumentsIn(const std::string& text) {
    EXPECT_TRUE(absl::EndsWith(text, "<|endoftext|>"));
    std::vector<std::string> documents = absl::StrSplit(text, "<|endoftext|>");
    documents.pop_back();
    return documents;
  }

  TempDir dir_;
};

TEST_F(DatasetBuilderTest, EveryDocumentIsInOneSplitOnceAndWhole) {
  for (const std::string tokenizer : {"bytes", "bpe"}) {
    DatasetOptions options = Options(tokenizer);
    options.tokenizer = tokenizer;
    options.vocab_size = 300;
    ASSERT_OK_AND_ASSIGN(const DatasetInfo info, BuildDataset(options));
    const std::vector<std::string> train = DocumentsIn(Text(options, info, Split::kTrain));
    const std::vector<std::string> validation = DocumentsIn(Text(options, info, Split::kValidation));
    EXPECT_EQ(train.size(), 90u);
    EXPECT_EQ(validation.size(), 10u);
    EXPECT_EQ(info.DocumentCount(Split::kTrain), 90);
    std::set<std::string> all(train.begin(), train.end());
    all.insert(validation.begin(), validation.end());
    EXPECT_EQ(all.size(), 100u);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(all.count(Document(i)), 1u) << i;
    EXPECT_FALSE(std::is_sorted(train.begin(), train.end()));  // shuffled
    ASSERT_OK_AND_ASSIGN(const DatasetInfo read, ReadDatasetInfo(options.output));
    EXPECT_EQ(ToJson(read), ToJson(info));
  }
}

TEST_F(DatasetBuilderTest, SameOptionsGiveTheSameBytesAndAnotherSeedOthers) {
  DatasetOptions options = Options("a");
  options.tokenizer = "bpe";
  options.vocab_size = 300;
  ASSERT_OK(BuildDataset(options));
  DatasetOptions again = options, other = options;
  again.output = dir_.Join("b");
  other.output = dir_.Join("c");
  other.seed = 6;
  ASSERT_OK(BuildDataset(again));
  ASSERT_OK(BuildDataset(other));
  for (const char* file : {"dataset.json", "tokenizer.json", "train-00000.bin", "validation-00000.bin"}) {
    ASSERT_OK_AND_ASSIGN(const std::string a, ReadFile(JoinPath(options.output, file)));
    ASSERT_OK_AND_ASSIGN(const std::string b, ReadFile(JoinPath(again.output, file)));
    EXPECT_EQ(a, b) << file;
  }
  ASSERT_OK_AND_ASSIGN(const std::string a, ReadFile(JoinPath(options.output, "train-00000.bin")));
  ASSERT_OK_AND_ASSIGN(const std::string c, ReadFile(JoinPath(other.output, "train-00000.bin")));
  EXPECT_NE(a, c);
}

TEST_F(DatasetBuilderTest, OneLargeDocumentIsCutAtALine) {
  DatasetOptions options = Options("a");
  options.corpus.separator = "";
  ASSERT_OK_AND_ASSIGN(const DatasetInfo info, BuildDataset(options));
  const std::string train = Text(options, info, Split::kTrain);
  const std::string validation = Text(options, info, Split::kValidation);
  EXPECT_EQ(info.DocumentCount(Split::kTrain), 1);
  EXPECT_EQ(info.DocumentCount(Split::kValidation), 1);
  EXPECT_NEAR(static_cast<double>(validation.size()) / static_cast<double>(train.size() + validation.size()), 0.1,
              0.03);
  EXPECT_TRUE(absl::EndsWith(train, ".\n<|endoftext|>"));
}

TEST_F(DatasetBuilderTest, ManyShardsHoldTheSameTokens) {
  DatasetOptions one = Options("a"), many = Options("b");
  many.shard_tokens = 200;
  ASSERT_OK_AND_ASSIGN(const DatasetInfo a, BuildDataset(one));
  ASSERT_OK_AND_ASSIGN(const DatasetInfo b, BuildDataset(many));
  EXPECT_EQ(a.train.size(), 1u);
  EXPECT_GT(b.train.size(), 10u);
  EXPECT_EQ(Text(one, a, Split::kTrain), Text(many, b, Split::kTrain));
}

TEST_F(DatasetBuilderTest, NoValidationIfNoneIsWanted) {
  DatasetOptions options = Options("a");
  options.validation_fraction = 0;
  ASSERT_OK_AND_ASSIGN(const DatasetInfo info, BuildDataset(options));
  EXPECT_TRUE(info.validation.empty());
  EXPECT_EQ(info.DocumentCount(Split::kTrain), 100);
}

TEST_F(DatasetBuilderTest, AnExistingDatasetIsKeptUnlessToldOtherwise) {
  DatasetOptions options = Options("a");
  options.shard_tokens = 200;
  ASSERT_OK(BuildDataset(options));
  options.shard_tokens = 1 << 20;
  EXPECT_THAT(BuildDataset(options), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("--overwrite")));
  options.overwrite = true;
  ASSERT_OK(BuildDataset(options));
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> names, ListDir(options.output));
  EXPECT_THAT(names,
              ::testing::ElementsAre("dataset.json", "tokenizer.json", "train-00000.bin", "validation-00000.bin"));
}

TEST_F(DatasetBuilderTest, ATokenizerFileIsUsedAsItIs) {
  DatasetOptions first = Options("a");
  first.tokenizer = "bpe";
  first.vocab_size = 300;
  ASSERT_OK_AND_ASSIGN(const DatasetInfo a, BuildDataset(first));
  DatasetOptions second = Options("b");
  second.tokenizer = TokenizerPath(first.output);
  ASSERT_OK_AND_ASSIGN(const DatasetInfo b, BuildDataset(second));
  EXPECT_EQ(b.tokenizer, "file");
  EXPECT_EQ(b.Fingerprint(), a.Fingerprint());
}

TEST_F(DatasetBuilderTest, OptionsOutOfRangeTouchNothing) {
  DatasetOptions options = Options("a");
  options.validation_fraction = 0.6;
  EXPECT_THAT(BuildDataset(options),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("validation_fraction: 0.6 is not in [0, 0.5]")));
  options = Options("a");
  options.tokenizer = "bpe";
  options.vocab_size = 100;
  EXPECT_THAT(BuildDataset(options), StatusIs(StatusCode::kInvalidArgument, HasSubstr("vocab_size: 100")));
  options.tokenizer = dir_.Join("none.json");
  EXPECT_THAT(BuildDataset(options), StatusIs(StatusCode::kNotFound, HasSubstr("none.json")));
  EXPECT_FALSE(FileExists(options.output));
}

}  // namespace
}  // namespace trainyard::data
