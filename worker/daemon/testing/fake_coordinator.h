// A coordinator for tests of the daemon: a real gRPC server that acknowledges everything, records what it hears, and
// says what the test wants.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "base/mutex.h"
#include "proto/v1/worker.pb.h"

namespace trainyard::daemon {

class FakeCoordinator {
 public:
  FakeCoordinator();
  ~FakeCoordinator();

  // Again after Stop: at the same address.
  void Start();
  void Stop();
  const std::string& address() const;

  // What the next registrations are told.
  v1::Registered registered;
  // 0: commits succeed.
  int commit_code = 0;

  void Push(const v1::CoordinatorMessage& message);

  std::vector<v1::Register> registrations() const;
  // The newest report of the task, from Register too; empty if none came.
  v1::TaskReport report(uint64_t fence) const;
  v1::TaskState state(uint64_t fence) const { return report(fence).state(); }
  // All bytes of a stream in order; "<gap n>" for gaps, "<end>" at its end. CHECKs that nothing came twice differently.
  std::string log(const std::string& uid, int rank, const std::string& stream) const;
  // Values of `name` by step.
  std::map<int64_t, double> metric(const std::string& name) const;
  // For each step whose checkpoint was to be committed: the newest step whose metrics had come before that message.
  std::map<int64_t, int64_t> commits() const;
  // Every request for trials, in order of arrival; nothing is answered by itself.
  std::vector<v1::RunTrials> trial_requests() const;
  // What was said of a slot last, by Register or later.
  v1::WorkerSlot slot(int index) const;
  // The slots that were healthy in the newest message when the task was first reported as EXITED.
  std::vector<int> healthy_at_exit(uint64_t fence) const;
  int heartbeats() const;

 private:
  class Service;
  std::unique_ptr<Service> service_;
};

// Waits up to 30 s, looking often.
bool WaitUntil(const std::function<bool()>& condition);

}  // namespace trainyard::daemon
