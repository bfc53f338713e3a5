// A soak of cardinality (CP-68): jobs, queues and workers come and go, some fail, and the number of series on /metrics
// stays bounded and comes back to where it was. Volcano kept 207,512 series of 2,280 groups of pods (volcano #4821).
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "coordinator/testing/scrape.h"
#include "coordinator/testing/test_coordinator.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/support/process.h"

namespace trainyard::testing_support {
namespace {

using coordinator::FakeWorker;
using coordinator::SumOf;
using Series = std::map<std::string, double>;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kRounds = 3;
constexpr int kJobs = 150;  // a round
constexpr int kQueues = 75;
constexpr int kWorkers = 3;
constexpr int kSlots = 8;
// What there may be while 75 queues have jobs: 50 of them (and one for the others), each with series of the states that
// its jobs have been in, 9 at most, for one kind; and some 1,000 others, most of them buckets of histograms.
constexpr size_t kMostSeries = 51 * 9 + 1400;

std::set<std::string> NamesOf(const Series& series) {
  std::set<std::string> names;
  for (const auto& [name, value] : series) names.insert(name);
  return names;
}

std::set<std::string> Missing(const std::set<std::string>& from, const std::set<std::string>& in) {
  std::set<std::string> missing;
  for (const std::string& name : from) {
    if (!in.contains(name)) missing.insert(name);
  }
  return missing;
}

// A real coordinator whose workers have no processes, so that there can be many jobs.
class CoordinatorSoak : private coordinator::TestCoordinator {
 public:
  CoordinatorSoak()
      : TestCoordinator([](coordinator::CoordinatorOptions& options) {
          options.timing.heartbeat_interval = absl::Milliseconds(200);
          options.timing.lease_ttl = absl::Seconds(1);
          options.timing.failover_grace = absl::Seconds(2);
          options.timing.backoff_scale = 0.001;
          options.timing.retention_interval = absl::Milliseconds(500);
        }) {}

  Series Scrape() {
    Series series = TestCoordinator::Scrape();
    most_ = std::max(most_, series.size());
    return series;
  }
  size_t most() const { return most_; }

  // Whole lives of kJobs jobs on workers of their own.
  void Round(int round) {
    std::vector<std::unique_ptr<FakeWorker>> workers;
    for (int i = 0; i < kWorkers; ++i) {
      workers.push_back(FakeWorker::Start({.coordinator = server().address(),
                                           .worker_id = absl::StrCat("worker-", round, "-", i),
                                           .slots = kSlots,
                                           .heartbeat_interval = absl::Milliseconds(200)}));
    }
    for (int i = 0; i < kJobs; ++i) SubmitJob(round, i);
    Scrape();
    const absl::Duration end = RealClock()->Monotonic() + absl::Seconds(60);
    int started = 0;
    while (Ended(Scrape()) < kJobs * round && RealClock()->Monotonic() < end) {
      for (const auto& worker : workers) {
        if (worker != nullptr) started += Drive(*worker);
      }
      // One of them vanishes with what runs on it, in mid-round.
      if (workers[0] != nullptr && started > kJobs / 3) workers[0] = nullptr;
    }
    EXPECT_EQ(workers[0], nullptr);
    workers.clear();
    EXPECT_TRUE(WaitUntil([&] { return SumOf(Scrape(), "trainyard_workers", {"state=\"lost\""}) == kWorkers; },
                          absl::Seconds(20)));
    for (int i = 0; i < kWorkers; ++i) EXPECT_OK(ForgetWorker(absl::StrCat("worker-", round, "-", i)));
    // And the jobs are deleted when they have been kept long enough.
    EXPECT_TRUE(WaitUntil([&] { return SumOf(Scrape(), "trainyard_jobs") == 0; }, absl::Seconds(20)));
    EXPECT_TRUE(WaitUntil([&] { return SumOf(Scrape(), "trainyard_workers") == 0; }, absl::Seconds(5)));
  }

 private:
  static double Ended(const Series& series) {
    double ended = 0;
    for (const char* state : {"succeeded", "failed", "cancelled"}) {
      ended += SumOf(series, "trainyard_job_transitions_total", {absl::StrCat("to=\"", state, "\"")});
    }
    return ended;
  }

  void SubmitJob(int round, int i) {
    v1::JobSpec spec = coordinator::SpecForTests(absl::StrCat("job-", round, "-", i));
    spec.set_queue(absl::StrCat("queue-", round, "-", i % kQueues));
    spec.mutable_ttl_after_finish()->set_seconds(1);
    ASSERT_OK(Submit(spec));
    if (i % 10 == 9) {
      v1::JobActionRequest cancel;
      cancel.set_job(spec.name());
      grpc::ClientContext cancel_context;
      v1::Job job;
      ASSERT_TRUE(jobs().Cancel(&cancel_context, cancel, &job).ok());
    }
  }

  // Ends what has started on the worker: most well, some badly for good, some badly once.
  int Drive(FakeWorker& worker) {
    int started = 0;
    while (const auto message = worker.Await(coordinator::IsAssign, absl::ZeroDuration())) {
      tasks_[message->assign().ref().fence()] = message->assign();
    }
    while (const auto message = worker.Await(coordinator::IsStart, absl::ZeroDuration())) {
      const auto task = tasks_.find(message->start().ref().fence());
      if (task == tasks_.end()) continue;
      ++started;
      const uint64_t fence = task->first;
      if (fence % 11 == 0) {
        worker.Fail(task->second, 65);
      } else if (fence % 7 == 0) {
        worker.Fail(task->second, 75);
      } else {
        worker.Succeed(task->second, v1::JobResult());
      }
      tasks_.erase(task);
    }
    return started;
  }

  std::map<uint64_t, v1::Assign> tasks_;
  size_t most_ = 0;
};

TEST(CardinalityTest, TheCoordinatorsSeriesComeBackToWhereTheyWere) {
  CoordinatorSoak soak;
  const std::set<std::string> at_start = NamesOf(soak.Scrape());
  std::set<std::string> base;
  for (int round = 1; round <= kRounds; ++round) {
    soak.Round(round);
    const Series series = soak.Scrape();
    const std::set<std::string> now = NamesOf(series);
    EXPECT_THAT(Missing(at_start, now), ::testing::IsEmpty());
    for (const std::string& name : now) {
      EXPECT_THAT(name, Not(HasSubstr(absl::StrCat("-", round, "-")))) << "names a job, a queue or a worker";
      EXPECT_TRUE(!absl::StartsWith(name, "trainyard_jobs{") || at_start.contains(name)) << name;
    }
    // All that the first round has added are reasons of transitions and codes of calls that had not occurred; a later
    // round may meet a few more, but none for each job.
    if (round == 1) base = now;
    EXPECT_LE(now.size(), base.size() + 6) << ::testing::PrintToString(Missing(now, base));
    EXPECT_EQ(SumOf(series, "trainyard_invariant_violations_total"), 0);
  }
  EXPECT_LE(base.size(), at_start.size() + 40);
  // The queues had series: at least one each, before a worker of the next round had ended a job.
  EXPECT_GT(soak.most(), base.size() + kQueues / 2);
  EXPECT_LE(soak.most(), kMostSeries);
}

}  // namespace
}  // namespace trainyard::testing_support
