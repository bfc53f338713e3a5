// The runner's side of a job, for tests: a place, a communicator, a stop flag, and the sections that were entered.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "worker/jobs/job.h"

namespace trainyard::jobs {

class FakeContext final : public JobContext {
 public:
  FakeContext(JobPlace place, comm::Communicator* communicator)
      : place_(std::move(place)), communicator_(communicator) {}
  const JobPlace& place() const override { return place_; }
  comm::Communicator* communicator() override { return communicator_; }
  bool ShouldStop() override { return stops; }
  absl::StatusOr<bool> AgreeToStop() override { return stops; }
  void EnterSection(absl::string_view section) override { sections.emplace_back(section); }

  bool stops = false;
  std::vector<std::string> sections;

 private:
  const JobPlace place_;
  comm::Communicator* const communicator_;
};

}  // namespace trainyard::jobs
