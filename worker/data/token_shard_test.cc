#include "worker/data/token_shard.h"

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"

namespace trainyard::data {
namespace {

using ::absl::StatusCode;
using ::testing::HasSubstr;

class TokenShardTest : public ::testing::Test {
 protected:
  std::string path() const { return dir_.Join("train-00000.bin"); }
  absl::StatusOr<TokenShardInfo> WriteShard(const std::vector<int32_t>& tokens, int32_t vocab_size) {
    TY_ASSIGN_OR_RETURN(TokenShardWriter writer, TokenShardWriter::Create(path(), vocab_size));
    TY_RETURN_IF_ERROR(writer.Append(tokens));
    writer.CountDocument();
    return writer.Finish();
  }
  TempDir dir_;
};

TEST_F(TokenShardTest, RoundTripInTwoAndFourBytes) {
  for (const int32_t vocab_size : {10, 65536, 65537, 2000000000}) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < 600000; ++i) tokens.push_back(static_cast<int32_t>(i * 7919 % vocab_size));
    ASSERT_OK_AND_ASSIGN(const TokenShardInfo written, WriteShard(tokens, vocab_size));
    ASSERT_OK_AND_ASSIGN(const TokenShard shard, TokenShard::Open(path()));
    EXPECT_EQ(shard.info().bytes_per_token, vocab_size <= 65536 ? 2 : 4);
    EXPECT_EQ(shard.info().token_count, 600000);
    EXPECT_EQ(shard.info().document_count, 1);
    EXPECT_EQ(shard.info().vocab_size, vocab_size);
    EXPECT_EQ(shard.info().digest, written.digest);
    EXPECT_OK(shard.Verify());
    std::vector<int32_t> read(tokens.size());
    EXPECT_EQ(shard.Copy(0, 600000, read.data()), *std::max_element(tokens.begin(), tokens.end()));
    EXPECT_EQ(read, tokens);
    EXPECT_EQ(shard.info().max_token, *std::max_element(tokens.begin(), tokens.end()));
    int32_t two[2];
    shard.Copy(599998, 2, two);
    EXPECT_EQ(two[1], tokens[599999]);
  }
}

TEST_F(TokenShardTest, FileIsTheDocumentedBytes) {
  ASSERT_OK(WriteShard({1, 258}, 300));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(path()));
  ASSERT_EQ(bytes.size(), 68u);
  EXPECT_EQ(bytes.substr(0, 16), std::string("TYTOKENS\x01\0\0\0\x02\0\0\0", 16));
  EXPECT_EQ(bytes.substr(16, 16), std::string("\x02\0\0\0\0\0\0\0\x2C\x01\0\0\x02\x01\0\0", 16));
  EXPECT_EQ(bytes.substr(64), std::string("\x01\0\x02\x01", 4));
}

TEST_F(TokenShardTest, RefusesIdsOutsideTheVocabulary) {
  EXPECT_THAT(WriteShard({1, 10}, 10), StatusIs(StatusCode::kInvalidArgument, HasSubstr("token 10 is not in [0, 10)")));
  EXPECT_THAT(WriteShard({-1}, 10), StatusIs(StatusCode::kInvalidArgument, HasSubstr("token -1")));
  EXPECT_FALSE(FileExists(path()));
  EXPECT_FALSE(FileExists(path() + ".tmp"));  // what was not finished is gone
}

TEST_F(TokenShardTest, EveryTruncationAndEveryDamagedByteIsFound) {
  ASSERT_OK(WriteShard({1, 2, 3, 4, 5}, 10));
  ASSERT_OK_AND_ASSIGN(const std::string whole, ReadFile(path()));
  for (size_t size = 0; size < whole.size(); ++size) {
    ASSERT_OK(WriteFileAtomic(path(), whole.substr(0, size)));
    EXPECT_THAT(TokenShard::Open(path()), StatusIs(StatusCode::kDataLoss, HasSubstr("train-00000.bin"))) << size;
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    ASSERT_OK(WriteFileAtomic(path(), damaged));
    const absl::StatusOr<TokenShard> shard = TokenShard::Open(path());
    if (i < 64) {
      EXPECT_FALSE(shard.ok()) << i;
    } else {
      ASSERT_OK(shard.status());
      EXPECT_THAT(shard->Verify(), StatusIs(StatusCode::kDataLoss, HasSubstr("digest")));
    }
  }
}

}  // namespace
}  // namespace trainyard::data
