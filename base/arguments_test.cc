#include "base/arguments.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard {
namespace {

using ::testing::ElementsAre;

TEST(ArgumentsTest, AnEmptyValueIsAnArgumentOfItsOwn) {
  EXPECT_THAT(SplitEmptyValues({"program", "--metrics_listen=", "--web_listen=:7072", "--list="}),
              ElementsAre("program", "--metrics_listen", "", "--web_listen=:7072", "--list", ""));
}

TEST(ArgumentsTest, EverythingElseStaysAsItIs) {
  const std::vector<std::string> kept = {
      "p", "--name=value", "--name", "", "--env=NAME=", "a=", "-x=", "--=", "--", "--name=", "-", "---"};
  EXPECT_EQ(SplitEmptyValues(kept), kept);
  EXPECT_TRUE(SplitEmptyValues({}).empty());
}

TEST(ArgumentsTest, LookLikeThoseOfMain) {
  const char* const argv[] = {"program", "--name=", "x", nullptr};
  const Arguments arguments(3, argv);
  ASSERT_EQ(arguments.argc(), 4);
  EXPECT_STREQ(arguments.argv()[0], "program");
  EXPECT_STREQ(arguments.argv()[1], "--name");
  EXPECT_STREQ(arguments.argv()[2], "");
  EXPECT_STREQ(arguments.argv()[3], "x");
  EXPECT_EQ(arguments.argv()[4], nullptr);
}

}  // namespace
}  // namespace trainyard
