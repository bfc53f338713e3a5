// A whole coordinator in the test's process: a temporary folder, free ports, /metrics and the web view, leases short
// enough to wait for; and what tests ask of it most. Fixtures inherit it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/testing/temp_dir.h"
#include "coordinator/api/coordinator_server.h"
#include "coordinator/testing/fake_worker.h"
#include "proto/v1/coordinator.grpc.pb.h"

namespace trainyard::coordinator {

// Plaintext on loopback, port 0; leases of 2 s, back-offs a hundredth of production's.
CoordinatorOptions OptionsForTests(const std::string& data_dir);

// A job that is accepted as it is: a small model, `ranks` ranks, one second for stops and before the second attempt.
v1::JobSpec SpecForTests(const std::string& name, int ranks = 1);

class TestCoordinator {
 public:
  using Change = std::function<void(CoordinatorOptions& options)>;
  // Starts it with OptionsForTests, as `change` (now and in each Restart) alters them. Aborts if it does not start.
  explicit TestCoordinator(Change change = nullptr);
  ~TestCoordinator();

  // Ends it and starts another on the same folder, on other ports.
  void Restart();

  CoordinatorServer& server() { return *server_; }
  v1::Jobs::Stub& jobs() { return *jobs_; }
  const TempDir& dir() const { return dir_; }  // its data_dir

  absl::StatusOr<v1::SubmitResponse> Submit(const v1::JobSpec& spec, const std::string& request_id = "");
  absl::Status ForgetWorker(const std::string& id);
  std::unique_ptr<FakeWorker> Worker(const std::string& id, int slots = 1, bool is_obedient = true);
  // Our series on its /metrics (scrape.h).
  std::map<std::string, double> Scrape() const;

 private:
  const Change change_;
  TempDir dir_;
  std::unique_ptr<CoordinatorServer> server_;
  std::unique_ptr<v1::Jobs::Stub> jobs_;
};

}  // namespace trainyard::coordinator
