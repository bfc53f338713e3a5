#include "base/digest.h"

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"

namespace trainyard {
namespace {

// The values `xxh128sum` prints (algorithm XXH3-128, seed 0).
constexpr char kOfNothing[] = "99aa06d3014798d86001c324468d497f";

TEST(DigestTest, OfNothingIsThePublishedValue) {
  EXPECT_EQ(DigestOf(""), kOfNothing);
  EXPECT_EQ(Digest().Hex(), kOfNothing);
}

TEST(DigestTest, DoesNotDependOnHowTheBytesAreCut) {
  std::string bytes;
  for (int i = 0; i < 5000; ++i) bytes.push_back(static_cast<char>(i * 7));
  for (size_t step : {1, 63, 64, 1000}) {
    Digest digest;
    for (size_t i = 0; i < bytes.size(); i += step) {
      digest.Update(bytes.data() + i, std::min(step, bytes.size() - i));
    }
    EXPECT_EQ(digest.Hex(), DigestOf(bytes)) << step;
  }
}

TEST(DigestTest, OfAFileIsTheDigestOfItsBytes) {
  TempDir dir;
  const std::string bytes(3'000'000, 'x');
  ASSERT_OK(WriteFileAtomic(dir.Join("f"), bytes));
  ASSERT_OK_AND_ASSIGN(const std::string digest, DigestOfFile(dir.Join("f")));
  EXPECT_EQ(digest, DigestOf(bytes));
  EXPECT_NE(digest, DigestOf(bytes + "x"));
  EXPECT_THAT(DigestOfFile(dir.Join("none")), StatusIs(absl::StatusCode::kNotFound, ::testing::HasSubstr("none")));
}

}  // namespace
}  // namespace trainyard
