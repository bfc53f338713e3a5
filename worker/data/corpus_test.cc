#include "worker/data/corpus.h"

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"

namespace trainyard::data {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CorpusTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& text) { ASSERT_OK(WriteFileAtomic(dir_.Join(name), text)); }
  std::vector<std::string> Documents(CorpusOptions options) {
    const absl::StatusOr<Corpus> corpus = Corpus::Open(options);
    EXPECT_OK(corpus);
    std::vector<std::string> documents;
    std::string scratch;
    for (int64_t i = 0; corpus.ok() && i < corpus->size(); ++i) documents.emplace_back(corpus->Document(i, &scratch));
    return documents;
  }
  TempDir dir_;
};

TEST_F(CorpusTest, FolderInOrderOfNamesWithoutHiddenAndForeignFiles) {
  ASSERT_OK(MakeDirs(dir_.Join("b")));
  Write("c.txt", "third");
  Write("a.md", "first");
  Write("b/x.txt", "second");
  Write(".hidden.txt", "no");
  Write("d.bin", "no");
  Write("empty.txt", "");
  EXPECT_THAT(Documents({.inputs = {dir_.path()}}), ElementsAre("first", "second", "third"));
  EXPECT_THAT(Documents({.inputs = {dir_.Join("d.bin")}}), ElementsAre("no"));  // named, so read
}

TEST_F(CorpusTest, SeparatorsCutDocumentsAndAreInNone) {
  Write("a.txt", "<|endoftext|>one\n<|endoftext|>\n\ntwo<|endoftext|><|endoftext|>\n");
  EXPECT_THAT(Documents({.inputs = {dir_.path()}}), ElementsAre("one\n", "\ntwo"));
  EXPECT_EQ(Documents({.inputs = {dir_.path()}, .separator = "t"}).size(), 10u);
  EXPECT_EQ(Documents({.inputs = {dir_.path()}, .separator = ""}).size(), 1u);
  const std::string big(300000, 'x');  // mapped, where small files are read
  Write("a.txt", big + "<|endoftext|>" + big);
  EXPECT_THAT(Documents({.inputs = {dir_.path()}}), ElementsAre(big, big));
}

TEST_F(CorpusTest, JsonLines) {
  Write("a.jsonl", "{\"text\": \"one\\n\\u00e9\", \"id\": 1}\r\n\n{\"text\": \"\"}\n{\"text\": \"two\"}");
  EXPECT_THAT(Documents({.inputs = {dir_.path()}}), ElementsAre("one\n\u00e9", "two"));
  Write("a.jsonl", "{\"text\": \"one\"}\n{\"txt\": \"two\"}\n");
  EXPECT_THAT(Corpus::Open({.inputs = {dir_.path()}}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("a.jsonl:2: has no string \"text\"")));
  Write("a.jsonl", "{\"text\": \"one\"\n");
  EXPECT_THAT(Corpus::Open({.inputs = {dir_.path()}}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("a.jsonl:1: is not a JSON object")));
}

TEST_F(CorpusTest, NothingToReadIsAnErrorWithTheName) {
  EXPECT_THAT(Corpus::Open({.inputs = {dir_.Join("none")}}), StatusIs(StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_THAT(Corpus::Open({.inputs = {dir_.path()}}), StatusIs(StatusCode::kInvalidArgument, HasSubstr(".jsonl")));
  Write("a.txt", "");
  EXPECT_THAT(Corpus::Open({.inputs = {dir_.path()}}), StatusIs(StatusCode::kInvalidArgument, HasSubstr("no text")));
}

}  // namespace
}  // namespace trainyard::data
