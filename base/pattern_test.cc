#include "base/pattern.h"

#include "gtest/gtest.h"

namespace trainyard {
namespace {

TEST(PatternTest, StarTakesAnyCharactersAndQuestionMarkOne) {
  EXPECT_TRUE(MatchesPattern("discriminator.*", "discriminator.head.weight"));
  EXPECT_FALSE(MatchesPattern("discriminator.*", "generator.head.weight"));
  EXPECT_FALSE(MatchesPattern("head", "discriminator.head"));  // the whole name
  EXPECT_TRUE(MatchesPattern("*.conv?.weight", "a.b.conv2.weight"));
  EXPECT_FALSE(MatchesPattern("*.conv?.weight", "a.b.conv12.weight"));
  EXPECT_TRUE(MatchesPattern("*ab*ab", "abxabab"));
  EXPECT_FALSE(MatchesPattern("*ab*ab", "abxaba"));
  EXPECT_TRUE(MatchesPattern("**", ""));
  EXPECT_FALSE(MatchesPattern("?", ""));
}

TEST(PatternTest, AnyOfThem) {
  EXPECT_TRUE(MatchesAny({"a", "b*"}, "bc"));
  EXPECT_FALSE(MatchesAny({"a", "b*"}, "cb"));
  EXPECT_FALSE(MatchesAny({}, ""));
}

}  // namespace
}  // namespace trainyard
