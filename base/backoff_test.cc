#include "base/backoff.h"

#include "gtest/gtest.h"

namespace trainyard {
namespace {

// Scenario 11 of the control plane: waits before attempts 2..6 lie in these bounds.
TEST(BackoffTest, DoublesWithinTwentyPercent) {
  const BackoffOptions options{.initial = absl::Seconds(10), .maximum = absl::Seconds(600)};
  const double middle[] = {10, 20, 40, 80, 160, 320, 600, 600};
  for (uint64_t seed = 0; seed < 200; ++seed) {
    for (int attempt = 0; attempt < 8; ++attempt) {
      const double wait = absl::ToDoubleSeconds(Backoff(options, attempt, seed));
      EXPECT_GE(wait, 0.8 * middle[attempt]);
      EXPECT_LE(wait, 1.2 * middle[attempt]);
    }
  }
}

TEST(BackoffTest, JitterSpreadsOverTheWholeRange) {
  const BackoffOptions options{.initial = absl::Seconds(10), .maximum = absl::Seconds(600)};
  int low = 0;
  int high = 0;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    const absl::Duration wait = Backoff(options, 0, seed);
    low += wait < absl::Seconds(9);
    high += wait > absl::Seconds(11);
  }
  EXPECT_NEAR(low, 250, 60);  // a quarter of a uniform spread; 60 is over four standard deviations
  EXPECT_NEAR(high, 250, 60);
}

TEST(BackoffTest, HugeAttemptNumbersDoNotOverflow) {
  const BackoffOptions options{.initial = absl::Seconds(10), .maximum = absl::Seconds(600)};
  EXPECT_LE(Backoff(options, 1'000'000, 1), absl::Seconds(720));
}

}  // namespace
}  // namespace trainyard
