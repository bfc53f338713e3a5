// A real coordinator and real worker daemons in a folder of their own, driven through the `trainyard` program as a user
// would. Nothing here is faked; a test kills, pauses and restarts the processes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/testing/temp_dir.h"
#include "nlohmann/json.hpp"
#include "tests/support/process.h"

namespace trainyard::testing_support {

struct ClusterOptions {
  int workers = 2;
  int slots_per_worker = 1;
  // Short leases, so that a fault test need not wait for the 15 s of production.
  absl::Duration heartbeat_interval = absl::Milliseconds(500);
  absl::Duration lease_ttl = absl::Seconds(5);
  absl::Duration failover_grace = absl::Seconds(10);
  // Folder for the coordinator's store, workers' state and the jobs; empty means below the temporary folder.
  std::string coordinator_dir = {};
  std::string job_root = {};
};

class Cluster {
 public:
  explicit Cluster(const ClusterOptions& options = {});
  ~Cluster();

  // ---- processes ----
  void StartCoordinator();  // on the port of the first start, ever after
  void StartWorker(int index);
  Process& coordinator() { return *coordinator_; }
  Process& worker(int index) { return *workers_.at(index); }
  // Runner processes of this cluster that are alive now.
  std::vector<pid_t> Runners() const;
  std::string CoordinatorMetricsAddress() const;
  std::string WorkerMetricsAddress(int index) const;

  // ---- the user's view ----
  CommandResult Trainyard(const std::vector<std::string>& arguments, absl::Duration timeout = absl::Seconds(60)) const;
  // Submits a spec and returns the uid; fails the test on a refusal.
  std::string Submit(const std::string& yaml, const std::vector<std::string>& flags = {});
  nlohmann::json Get(const std::string& job) const;
  std::string State(const std::string& job) const;  // for example "JOB_STATE_RUNNING"
  int64_t Step(const std::string& job) const;       // newest step reported
  bool WaitForStep(const std::string& job, int64_t step, absl::Duration timeout = absl::Seconds(60)) const;
  bool WaitForState(const std::string& job, const std::string& state, absl::Duration timeout = absl::Seconds(90)) const;
  // step -> loss, as the exact text of the number.
  std::map<int64_t, std::string> Losses(const std::string& job) const;
  // The exported model's weights, as bytes.
  std::string ModelBytes(const std::string& job) const;

  const std::string& dir() const { return dir_.path(); }
  std::string job_root() const { return job_root_; }
  std::string coordinator_dir() const { return coordinator_dir_; }
  std::string worker_dir(int index) const;
  std::string coordinator_address() const { return address_; }
  // The last lines of every process's log, for failure messages.
  std::string Logs() const;

  // A small data set of deterministic text; "data" below the workers' data root.
  void MakeData();
  // A job over it: two ranks, a model of a few thousand parameters, a checkpoint every 20 steps.
  static std::string TinyJob(const std::string& name, int steps, const std::string& extra = "");

 private:
  ClusterOptions options_;
  TempDir dir_;
  std::string coordinator_dir_;
  std::string job_root_;
  std::string address_;
  std::unique_ptr<Process> coordinator_;
  std::map<int, std::unique_ptr<Process>> workers_;
};

// Path of one of the project's programs in the test's runfiles, for example "client/trainyard".
std::string ProgramPath(const std::string& relative);

}  // namespace trainyard::testing_support
