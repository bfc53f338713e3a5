// A worker daemon without processes, for tests: it speaks the real protocol, and the test says what its ranks do.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/v1/worker.pb.h"

namespace trainyard::coordinator {

struct FakeWorkerOptions {
  std::string coordinator;  // address
  std::string worker_id;
  int slots = 1;
  int driver_slots = 0;  // after the others
  int64_t start_count = 1;
  absl::Duration heartbeat_interval = absl::Milliseconds(50);
  // By itself: report READY on Assign, RUNNING on StartTask, and EXITED (stopped) on StopTask.
  bool is_obedient = true;
};

// Connects when made; the session ends with the object. Its thread-safe methods may be called from the test's thread
// while messages arrive.
class FakeWorker {
 public:
  static std::unique_ptr<FakeWorker> Start(const FakeWorkerOptions& options,
                                           const std::vector<v1::TaskReport>& tasks = {}, uint64_t max_fence = 0,
                                           uint64_t max_leader_epoch = 0);
  virtual ~FakeWorker() = default;

  // Waits for the next message that `wanted` accepts and takes it out of the inbox; nullopt after `timeout` or when
  // the session has ended.
  using Wanted = bool (*)(const v1::CoordinatorMessage&);
  virtual std::optional<v1::CoordinatorMessage> Await(Wanted wanted, absl::Duration timeout = absl::Seconds(10)) = 0;
  virtual void Send(const v1::WorkerMessage& message) = 0;
  virtual void PauseHeartbeats(bool paused) = 0;

  // Waits until the coordinator has ended the session, and says how: a grpc status code.
  virtual int AwaitEnd() = 0;

  // Reports for all ranks of the assigned task.
  virtual void ReportAll(const v1::Assign& assign, v1::TaskState state) = 0;
  virtual void Succeed(const v1::Assign& assign, const v1::JobResult& result) = 0;
  virtual void Fail(const v1::Assign& assign, int exit_code) = 0;
  virtual void Commit(const v1::AttemptRef& ref, int64_t step) = 0;
};

inline bool IsAssign(const v1::CoordinatorMessage& m) {
  return m.has_assign();
}
inline bool IsStart(const v1::CoordinatorMessage& m) {
  return m.has_start();
}
inline bool IsStop(const v1::CoordinatorMessage& m) {
  return m.has_stop();
}
inline bool IsRegistered(const v1::CoordinatorMessage& m) {
  return m.has_registered();
}
inline bool IsLogAck(const v1::CoordinatorMessage& m) {
  return m.has_log_ack();
}
inline bool IsTrialsAck(const v1::CoordinatorMessage& m) {
  return m.has_trials_ack();
}
inline bool IsCheckpointAck(const v1::CoordinatorMessage& m) {
  return m.has_checkpoint_ack();
}

}  // namespace trainyard::coordinator
