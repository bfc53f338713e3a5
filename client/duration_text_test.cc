#include "client/duration_text.h"

#include "gtest/gtest.h"

namespace trainyard::client {
namespace {

TEST(DurationText, Reads) {
  const std::vector<std::pair<const char*, absl::Duration>> cases = {
      {"90s", absl::Seconds(90)},
      {"10m", absl::Minutes(10)},
      {"1h30m", absl::Minutes(90)},
      {"1.5h", absl::Minutes(90)},
      {"250ms", absl::Milliseconds(250)},
      {"7d", absl::Hours(168)},
      {"90", absl::Seconds(90)},
      {"0.5", absl::Milliseconds(500)},
      {" 5s ", absl::Seconds(5)},
      {"-3s", absl::Seconds(-3)},
      {"1d2h3m4s", absl::Hours(26) + absl::Seconds(184)},
      {"1us", absl::Microseconds(1)},
      {"0", absl::ZeroDuration()},
      {"100ns", absl::Nanoseconds(100)},
  };
  for (const auto& [text, expected] : cases) {
    ASSERT_TRUE(ParseDurationText(text).has_value()) << text;
    EXPECT_EQ(*ParseDurationText(text), expected) << text;
  }
}

TEST(DurationText, RefusesEverythingElse) {
  for (const char* text : {"", "s", "1x", "1h30", "h1", "1.2.3s", "--1s", "1 h", "1e3s", "inf", "nan", "1d-2h",
                           "99999999999999999999d", "400000000000"}) {
    EXPECT_FALSE(ParseDurationText(text).has_value()) << text;
  }
}

TEST(DurationText, WritesWhatItReads) {
  for (const absl::Duration duration :
       {absl::ZeroDuration(), absl::Seconds(1), absl::Minutes(90), absl::Hours(168), absl::Nanoseconds(1),
        absl::Seconds(3661) + absl::Milliseconds(250), -absl::Seconds(5)}) {
    EXPECT_EQ(ParseDurationText(FormatDurationText(duration)), duration) << FormatDurationText(duration);
  }
  EXPECT_EQ(FormatDurationText(absl::Minutes(90)), "1h30m");
  EXPECT_EQ(FormatDurationText(absl::ZeroDuration()), "0s");
}

TEST(DurationText, RoughHasTwoUnits) {
  EXPECT_EQ(RoughDuration(absl::Seconds(12)), "12s");
  EXPECT_EQ(RoughDuration(absl::Seconds(125)), "2m 05s");
  EXPECT_EQ(RoughDuration(absl::Seconds(3700)), "1h 01m");
  EXPECT_EQ(RoughDuration(absl::Hours(76)), "3d 4h");
  EXPECT_EQ(RoughDuration(absl::Milliseconds(59'700)), "1m 00s");
  EXPECT_EQ(RoughDuration(absl::InfiniteDuration()), "unknown");
}

}  // namespace
}  // namespace trainyard::client
