// "Equals the undisturbed run, bit for bit": runs a job to its end with nobody in its way and keeps what came out, then
// compares another job of the same spec that was disturbed.
#pragma once

#include <map>
#include <string>

#include "tests/support/cluster.h"

namespace trainyard::testing_support {

struct RunRecord {
  std::map<int64_t, std::string> losses;  // exact text of the numbers
  std::string model;                      // bytes of the exported weights
};

// Steps of the jobs below: long enough that a fault in the middle hits a running job.
inline constexpr int kSteps = 1200;

// Submits and waits for success; fails the test otherwise.
RunRecord RunUndisturbed(Cluster& cluster, const std::string& name);

// Waits for `job` to succeed and compares every loss and every weight.
void ExpectSameAs(const RunRecord& expected, Cluster& cluster, const std::string& job);

// No runner may outlive its job: waits a moment for the last ones, then fails the test.
void ExpectNoRunnerLeft(const Cluster& cluster);

// Number of the job's newest attempt.
int Attempts(const Cluster& cluster, const std::string& job);

}  // namespace trainyard::testing_support
