#include "worker/daemon/goodput.h"

#include "gtest/gtest.h"

namespace trainyard::daemon {
namespace {

constexpr absl::Duration kBegin = absl::Seconds(1000);

absl::Duration At(double seconds) {
  return kBegin + absl::Seconds(seconds);
}

v1::RankProgress Told(const std::string& section, const std::map<std::string, double>& seconds) {
  v1::RankProgress progress;
  progress.set_section(section);
  for (const auto& [category, value] : seconds) (*progress.mutable_goodput_seconds())[category] = value;
  return progress;
}

class Sum {
 public:
  void operator+=(const RankGoodput::Seconds& seconds) {
    for (const auto& [category, value] : seconds) {
      EXPECT_GE(value, 0) << category;
      seconds_[category] += value;
    }
  }
  double of(const std::string& category) const {
    const auto found = seconds_.find(category);
    return found == seconds_.end() ? 0 : found->second;
  }
  double all() const {
    double sum = 0;
    for (const auto& [category, value] : seconds_) sum += value;
    return sum;
  }

 private:
  RankGoodput::Seconds seconds_;
};

// CP-70: the categories add up to wall time, from the assignment to the end.
TEST(RankGoodputTest, AddsUpToWallTime) {
  Sum sum;
  RankGoodput book(/*follows_failure=*/false, /*waits=*/false, kBegin);
  sum += book.Starting(At(0.5));
  // The runner began to count 2 s after the assignment; its report took 0.25 s.
  sum += book.Report(Told("connect", {{"init", 3}}), At(5.25));
  EXPECT_DOUBLE_EQ(sum.all(), 5.25);
  EXPECT_DOUBLE_EQ(sum.of("init"), 5.25);
  sum += book.Report(Told("train", {{"productive", 4}, {"data_wait", 1}}), At(10.5));
  sum += book.Report(Told("train", {{"productive", 5}}), At(15.25));
  EXPECT_DOUBLE_EQ(sum.of("productive"), 9);
  EXPECT_DOUBLE_EQ(sum.all(), 15.25);
  sum += book.Report(Told("export", {{"checkpoint_save", 1}}), At(16.25));
  sum += book.Ended(/*succeeded=*/true, /*checks_gpu=*/false, At(20));
  sum += book.Gone(At(21));
  EXPECT_DOUBLE_EQ(sum.of("other"), 4.75);
  EXPECT_DOUBLE_EQ(sum.of("lost_progress"), 0);
  EXPECT_DOUBLE_EQ(sum.all(), 21);
}

TEST(RankGoodputTest, LateReportsDoNotAddUp) {
  Sum sum;
  RankGoodput book(false, false, kBegin);
  sum += book.Starting(At(0));
  double now = 0;
  for (int i = 0; i < 1000; ++i) {
    now += 1;
    sum += book.Report(Told("train", {{"productive", 1}}), At(now + (i % 7) * 0.01));  // up to 60 ms late
  }
  EXPECT_NEAR(sum.all(), 1000, 1e-6);
  sum += book.Ended(false, false, At(1000.5));
  EXPECT_NEAR(sum.all(), 1000.5, 1e-6);
}

TEST(RankGoodputTest, TheUnitAtWorkIsLostWithItsRank) {
  Sum sum;
  RankGoodput book(/*follows_failure=*/true, false, kBegin);
  sum += book.Starting(At(0));
  sum += book.Report(Told("train", {{"recovery", 2}, {"productive", 1}}), At(4));
  EXPECT_DOUBLE_EQ(sum.of("recovery"), 3);
  sum += book.Ended(/*succeeded=*/false, false, At(64));  // killed by the watchdog, say
  EXPECT_DOUBLE_EQ(sum.of("lost_progress"), 60);
  EXPECT_DOUBLE_EQ(sum.of("productive"), 1);
  EXPECT_DOUBLE_EQ(sum.all(), 64);
}

TEST(RankGoodputTest, LooksAtGpusAreHealthChecks) {
  Sum sum;
  RankGoodput book(false, /*waits=*/true, kBegin);
  sum += book.Starting(At(3));
  EXPECT_DOUBLE_EQ(sum.of("health_check"), 3);
  sum += book.Ended(false, /*checks_gpu=*/true, At(5));  // it never said a word
  EXPECT_DOUBLE_EQ(sum.of("init"), 2);
  sum += book.Gone(At(9));
  EXPECT_DOUBLE_EQ(sum.of("health_check"), 7);
  EXPECT_DOUBLE_EQ(sum.all(), 9);
}

}  // namespace
}  // namespace trainyard::daemon
