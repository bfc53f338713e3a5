#include "worker/prune/task/documents.h"

#include <algorithm>
#include <set>

#include "base/check.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard::prune {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int32_t kEnd = 99;

// A data set folder of documents, each followed by the end-of-text token, if there is one.
class Documents {
 public:
  Documents(const std::vector<std::vector<Document>>& shards, int32_t end_of_text) {
    info_.vocab_size = 100;
    info_.end_of_text_id = end_of_text;
    info_.tokenizer = "bytes";
    info_.tokenizer_digest = DigestOf("");
    for (size_t i = 0; i < shards.size(); ++i) {
      const std::string file = "train-0000" + std::to_string(i) + ".bin";
      absl::StatusOr<data::TokenShardWriter> writer = data::TokenShardWriter::Create(dir_.Join(file), 100);
      TY_CHECK_OK(writer);
      for (const Document& document : shards[i]) {
        TY_CHECK_OK(writer->Append(document));
        if (end_of_text < 0) continue;
        TY_CHECK_OK(writer->Append({end_of_text}));
        writer->CountDocument();
      }
      absl::StatusOr<data::TokenShardInfo> info = writer->Finish();
      TY_CHECK_OK(info);
      info_.train.push_back({file, *info});
    }
    TY_CHECK_OK(WriteFileAtomic(dir_.Join("dataset.json"), data::ToJson(info_)));
  }

  absl::StatusOr<DocumentPool> Open(Half half, int64_t sequence_length, int64_t most = 1000, int64_t vocab_size = 100) {
    return DocumentPool::Open({.directory = dir_.path(),
                               .half = half,
                               .sequence_length = sequence_length,
                               .most_tokens = most,
                               .vocab_size = vocab_size});
  }

 private:
  TempDir dir_;
  data::DatasetInfo info_;
};

std::vector<Document> All(const DocumentPool& pool) {
  std::vector<Document> all;
  for (int64_t i = 0; i < pool.size(); ++i) all.push_back(pool.document(i));
  return all;
}

// 20 tokens: the middle is after the tenth, inside the third document, which belongs to neither half whole.
TEST(DocumentsTest, HalvesAreCutIntoDocumentsAndLongOnesIntoPieces) {
  Documents data({{{1, 2, 3}, {4, 5}, {6, 7, 8, 9}}, {{10, 11, 12, 13, 14}, {15}}}, kEnd);
  ASSERT_OK_AND_ASSIGN(const DocumentPool first, data.Open(Half::kFirst, 100));
  EXPECT_THAT(All(first), ElementsAre(Document{1, 2, 3, kEnd}, Document{4, 5, kEnd}, Document{6, 7, 8}));
  EXPECT_EQ(first.token_count(), 10);
  ASSERT_OK_AND_ASSIGN(const DocumentPool second, data.Open(Half::kSecond, 100));
  EXPECT_THAT(All(second), ElementsAre(Document{10, 11, 12, 13, 14, kEnd}, Document{15, kEnd}));
  ASSERT_OK_AND_ASSIGN(const DocumentPool pieces, data.Open(Half::kSecond, 4));
  EXPECT_THAT(All(pieces), ElementsAre(Document{10, 11, 12, 13}, Document{14, kEnd}, Document{15, kEnd}));
  ASSERT_OK_AND_ASSIGN(const DocumentPool small, data.Open(Half::kSecond, 4, 5));
  EXPECT_THAT(All(small), ElementsAre(Document{10, 11, 12, 13}, Document{14, kEnd}));
}

TEST(DocumentsTest, WithoutAnEndAShardIsOneDocument) {
  Documents data({{{1, 2, 3, 4, 5}}, {{6, 7, 8}}}, -1);
  ASSERT_OK_AND_ASSIGN(const DocumentPool second, data.Open(Half::kSecond, 3));
  EXPECT_THAT(All(second), ElementsAre(Document{6, 7, 8}));  // token 5 alone has no next one
  ASSERT_OK_AND_ASSIGN(const DocumentPool first, data.Open(Half::kFirst, 3));
  EXPECT_THAT(All(first), ElementsAre(Document{1, 2, 3}));
}

TEST(DocumentsTest, DrawsWithoutReplacementByTheirNumber) {
  std::vector<Document> documents;
  for (int32_t i = 0; i < 40; ++i) documents.push_back(Document(static_cast<size_t>(4 + i % 5), i));
  Documents data({documents}, kEnd);
  ASSERT_OK_AND_ASSIGN(const DocumentPool pool, data.Open(Half::kFirst, 100));
  ASSERT_OK_AND_ASSIGN(const std::vector<Document> drawn, pool.Draw(3, 8, 60, false));
  int64_t tokens = 0;
  std::set<int32_t> firsts;
  for (const Document& document : drawn) {
    tokens += static_cast<int64_t>(document.size());
    EXPECT_TRUE(firsts.insert(document.front()).second) << "twice";
  }
  EXPECT_GE(tokens, 60);
  EXPECT_LT(tokens - static_cast<int64_t>(drawn.back().size()), 60) << "one too many";

  ASSERT_OK_AND_ASSIGN(std::vector<Document> cut, pool.Draw(3, 8, 60, true));
  int64_t cut_tokens = 0;
  for (const Document& document : cut) cut_tokens += static_cast<int64_t>(document.size());
  EXPECT_EQ(cut_tokens, 60);
  EXPECT_EQ(cut.size(), drawn.size());

  EXPECT_EQ(*pool.Draw(3, 8, 60, false), drawn);
  EXPECT_NE(*pool.Draw(3, 9, 60, false), drawn);
  EXPECT_NE(*pool.Draw(4, 8, 60, false), drawn);
  EXPECT_TRUE(pool.Draw(3, 8, 0, false)->empty());
  EXPECT_THAT(pool.Draw(3, 8, pool.token_count() + 1, false),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("are to be drawn")));
}

TEST(DocumentsTest, RefusesWhatCannotBe) {
  Documents data({{{1, 2, 3}}}, kEnd);
  EXPECT_THAT(data.Open(Half::kFirst, 100, 1000, 50),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("100 words, the model 50")));
  Documents empty({{{1}}}, -1);
  EXPECT_THAT(empty.Open(Half::kFirst, 100), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no document")));
}

}  // namespace
}  // namespace trainyard::prune
