// A job and the runner's side of it, for tests.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/testing/status_matchers.h"
#include "worker/jobs/job.h"
#include "worker/jobs/make_job.h"

namespace trainyard::jobs {

// A place, a communicator, a stop flag, and the sections that were entered.
class FakeContext final : public JobContext {
 public:
  FakeContext(JobPlace place, comm::Communicator* communicator)
      : place_(std::move(place)), communicator_(communicator) {}
  const JobPlace& place() const override { return place_; }
  comm::Communicator* communicator() override { return communicator_; }
  bool ShouldStop() override { return stops; }
  absl::StatusOr<bool> AgreeToStop() override { return stops; }
  Trials* trials() override { return offered_trials; }
  void EnterSection(absl::string_view section) override { sections.emplace_back(section); }

  bool stops = false;
  Trials* offered_trials = nullptr;  // for kinds that ask for trials; borrowed
  std::vector<std::string> sections;

 private:
  const JobPlace place_;
  comm::Communicator* const communicator_;
};

// One rank of a job with its surroundings.
struct JobRank {
  JobRank(const spec::JobOptions& options, const std::string& attempt_dir, int rank = 0, int ranks = 1,
          comm::Communicator* communicator = nullptr)
      : context(
            [&] {
              JobPlace place;
              place.rank = rank;
              place.world_size = ranks;
              place.attempt_dir = attempt_dir;
              place.data_root = "/";
              return place;
            }(),
            communicator),
        job(MakeJob(options)) {}

  std::vector<UnitResult> Units(int count) {
    std::vector<UnitResult> units;
    for (int i = 0; i < count; ++i) {
      absl::StatusOr<UnitResult> unit = job->RunUnit();
      TY_CHECK_OK(unit);
      units.push_back(*std::move(unit));
    }
    return units;
  }

  FakeContext context;
  std::unique_ptr<Job> job;
};

}  // namespace trainyard::jobs
