// The shell around the core: one thread that owns the core and the store, applies inputs in the order they arrive,
// commits what they lead to, and only then answers, pushes and publishes.
//
// All inputs that wait when the thread is free, at most 256, share one commit: that is the group commit (CP-56).
//
// If a commit fails, nothing of it has happened: the core is loaded again from the store, users get the error, and
// what workers sent is kept. Until a probe shows that the store can be written again, changes by users are refused,
// what workers send waits, time stands still for the core (no lease ends), and reads go on (CP-59).
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "coordinator/core/core.h"
#include "coordinator/store/store.h"

namespace trainyard::coordinator {

// Where messages for one worker's session go. Called on the engine's thread; must not block.
class SessionSink {
 public:
  virtual ~SessionSink() = default;
  virtual void Send(const v1::CoordinatorMessage& message) = 0;
  virtual void Close(const absl::Status& status) = 0;
};

// Told what was committed, in order, on the engine's thread.
class EngineListener {
 public:
  virtual ~EngineListener() = default;
  virtual void OnCommitted(const Effects& effects, const Core& core, Now now) = 0;
  // After every attempt to commit.
  virtual void OnCommit(absl::Duration took, size_t writes, const absl::Status& status) = 0;
  // After every placement pass.
  virtual void OnSchedulePass(absl::Duration took) = 0;
  // The store can be written, or not any more.
  virtual void OnWritable(bool writable) = 0;
};

struct EngineOptions {
  Timing timing;
  absl::Duration tick_interval = absl::Milliseconds(100);
  absl::Duration probe_interval = absl::Milliseconds(500);
  // Progress and metrics wait so long for another reason to commit.
  absl::Duration lazy_interval = absl::Seconds(1);
  size_t max_batch = 256;
  size_t max_waiting = 16'384;  // changes by users beyond it are refused
};

class Engine {
 public:
  using Apply = std::function<absl::Status(Core& core, Now now, Effects* effects)>;
  // The change is durable, or the status says why it was not made. `core` is null if the engine did not even try.
  using Done = std::function<void(const absl::Status& status, const Core* core, Now now)>;
  using WorkerInput = std::function<void(Core& core, Now now, Effects* effects)>;
  using Reader = std::function<void(const Core& core, Store& store, Now now)>;

  // Loads the store and starts the thread. `clock` and `listener` outlive the engine; the listener may be null.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options, std::unique_ptr<Store> store,
                                                        Clock* clock, EngineListener* listener);
  ~Engine();

  Now now() const { return {clock_->Now(), clock_->Monotonic()}; }

  // All may be called from any thread.
  void Change(Apply apply, Done done);
  // May run again after a failed commit, so it must only touch its arguments.
  void FromWorker(WorkerInput input);
  // A worker's input that touches nothing durable: taken also while the store cannot be written.
  void FromWorkerVolatile(WorkerInput input);
  void Read(Reader reader);

  // A fresh session number that leads to `sink` until RemoveSession.
  uint64_t AddSession(std::shared_ptr<SessionSink> sink);
  void RemoveSession(uint64_t session);
  // Ends all sessions that are open now.
  void CloseSessions(const absl::Status& status);

  // Everything that was asked before it is answered; later inputs are refused. Idempotent.
  void Stop();

 private:
  enum class Kind { kChange, kWorker, kWorkerVolatile, kRead };
  struct Input {
    Kind kind;
    Apply apply;
    Done done;
    WorkerInput worker;
    Reader read;
  };
  struct Batch {
    Effects effects;
    std::vector<std::pair<absl::Status, Done>> answers;
    std::vector<Input> from_workers;  // to repeat if the commit fails
    std::vector<Reader> reads;
  };

  Engine(const EngineOptions& options, std::unique_ptr<Store> store, Clock* clock, EngineListener* listener, Core core);
  bool Enqueue(Input input);
  void Run();
  std::deque<Input> Take(bool* stopping);
  void ApplyInputs(std::deque<Input> inputs, Batch* batch);
  void TakeLazyWrites(Effects* effects);
  void CommitBatch(Batch batch, bool flush);
  void Recover(Batch batch, const absl::Status& status);
  void Publish(const Effects& effects);
  void ProbeStore();

  const EngineOptions options_;
  Clock* const clock_;
  EngineListener* const listener_;

  // The engine's thread only.
  const std::unique_ptr<Store> store_;
  Core core_;
  absl::Status trouble_;  // why the store cannot be written; OK if it can
  absl::Duration next_probe_ = absl::ZeroDuration();
  absl::Duration next_tick_ = absl::ZeroDuration();
  absl::Duration lazy_since_ = absl::ZeroDuration();
  std::vector<Write> lazy_;
  std::deque<Input> held_;  // from workers, while the store cannot be written

  Mutex mutex_;
  CondVar wake_;
  std::deque<Input> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t last_session_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, std::shared_ptr<SessionSink>> sinks_ ABSL_GUARDED_BY(mutex_);  // shared with the RPC's own end

  std::thread thread_;
};

}  // namespace trainyard::coordinator
