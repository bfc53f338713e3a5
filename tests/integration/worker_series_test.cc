// A soak of cardinality (CP-68) of a real daemon: jobs that end well, fail and are cancelled come and go, and the
// series on the worker's /metrics are those of the ranks that are there now. cardinality_test.cc does the same to a
// coordinator.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "coordinator/testing/scrape.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/cluster.h"

namespace trainyard::testing_support {
namespace {

using coordinator::HttpGet;
using coordinator::SeriesOf;
using coordinator::SumOf;
using Series = std::map<std::string, double>;

constexpr int kRounds = 3;
constexpr int kSlots = 4;
constexpr int kGood = 6;  // jobs of a round that end well; one fails and one is cancelled beside them

// The uid in a label `job`; empty if there is none.
std::string JobOf(const std::string& series) {
  const size_t label = series.find("job=\"");
  if (label == std::string::npos) return "";
  const size_t begin = label + 5;
  return series.substr(begin, series.find('"', begin) - begin);
}

std::set<std::string> NamesOf(const Series& series) {
  std::set<std::string> names;
  for (const auto& [name, value] : series) names.insert(name);
  return names;
}

std::string OneRankJob(const std::string& name, int steps) {
  return absl::StrReplaceAll(Cluster::TinyJob(name, steps), {{"{min: 2,", "{min: 1,"}});
}

class WorkerSeriesTest : public ::testing::Test {
 protected:
  WorkerSeriesTest() : cluster_({.workers = 1, .slots_per_worker = kSlots}) { cluster_.MakeData(); }

  Series Scrape() {
    const Series series = SeriesOf(HttpGet(cluster_.WorkerMetricsAddress(0)));
    std::map<std::string, size_t> of_jobs;
    for (const auto& [name, value] : series) {
      if (const std::string job = JobOf(name); !job.empty()) ++of_jobs[job];
    }
    most_jobs_ = std::max(most_jobs_, of_jobs.size());
    for (const auto& [job, count] : of_jobs) {
      seen_.insert(job);
      most_of_a_job_ = std::max(most_of_a_job_, count);
    }
    return series;
  }

  // Whole lives of the jobs of a round.
  void Round(int round) {
    std::vector<std::string> specs;
    for (int i = 0; i < kGood; ++i) specs.push_back(OneRankJob(absl::StrCat("good-", round, "-", i), 60));
    specs.push_back(
        absl::StrReplaceAll(OneRankJob(absl::StrCat("bad-", round), 60), {{"path: data", "path: nowhere"}}));
    specs.push_back(OneRankJob(absl::StrCat("endless-", round), 1'000'000));
    const std::vector<std::string> uids = absl::StrSplit(cluster_.Submit(absl::StrJoin(specs, "---\n")), '\n');
    ASSERT_EQ(uids.size(), specs.size());
    bool is_cancelled = false;
    const auto all_ended = [&] {
      const Series series = Scrape();
      // It has done a step by then, so that it has the series of one that trains.
      if (!is_cancelled && SumOf(series, "trainyard_step_timestamp_seconds", {uids.back()}) > 0) {
        is_cancelled = cluster_.Trainyard({"cancel", uids.back()}).exit_code == 0;
      }
      const Series jobs = SeriesOf(HttpGet(cluster_.CoordinatorMetricsAddress()));
      const auto ended = [&](const std::string& state) {
        return SumOf(jobs, "trainyard_job_transitions_total", {absl::StrCat("to=\"", state, "\"")});
      };
      return ended("succeeded") == kGood * round && ended("failed") == round && ended("cancelled") == round;
    };
    ASSERT_TRUE(WaitUntil(all_ended, absl::Seconds(200))) << cluster_.Logs();
    for (const std::string& uid : uids) jobs_.insert(uid);
  }

  Cluster cluster_;
  std::set<std::string> jobs_;  // that there have been
  std::set<std::string> seen_;  // of them, those that a scrape has met
  size_t most_jobs_ = 0;        // in one scrape
  size_t most_of_a_job_ = 0;    // series
};

TEST_F(WorkerSeriesTest, SeriesOfAWorkerAreThoseOfTheRanksThatAreThere) {
  const std::set<std::string> at_start = NamesOf(Scrape());
  std::set<std::string> base;
  for (int round = 1; round <= kRounds; ++round) {
    Round(round);
    if (HasFatalFailure()) return;
    // Ended jobs take their series with them.
    std::set<std::string> now;
    const bool are_gone = WaitUntil(
        [&] {
          now = NamesOf(Scrape());
          return std::all_of(now.begin(), now.end(), [](const std::string& name) { return JobOf(name).empty(); });
        },
        absl::Seconds(20));
    EXPECT_TRUE(are_gone) << ::testing::PrintToString(now);
    EXPECT_THAT(now, ::testing::IsSupersetOf(at_start));
    // What the first round has added are the reasons for which ranks end. Further jobs end for the same.
    if (round == 1) base = now;
    EXPECT_EQ(now, base);
  }
  EXPECT_LE(base.size(), at_start.size() + 3);
  // Most were met by a scrape, each with many series; never more at a time than there are slots.
  EXPECT_GE(seen_.size(), jobs_.size() / 2);
  EXPECT_THAT(jobs_, ::testing::IsSupersetOf(seen_));
  EXPECT_LE(most_jobs_, static_cast<size_t>(kSlots));
  EXPECT_GT(most_of_a_job_, 60u);
  EXPECT_LT(most_of_a_job_, 200u);
}

}  // namespace
}  // namespace trainyard::testing_support
