// The worker daemon: one session with the coordinator, the tasks on this host's slots, their logs and metrics.
//
// Everything happens on the thread that calls Run, in an event loop; the decisions are in Task, LeaseView, Fences,
// ProgressBuffer and LogSpool, and this class only carries things between them, the spawner, the runners and the
// session.
//
// On a slot with a GPU a rank starts only after a fresh look at the GPU (CP-37), sees no other one, and gives its slot
// back only when the GPU's memory is free again (CP-21); daemon_gpus.cc.
//
// state_dir/  worker_id  start_count  fences  lock  slot-<i>.lock  gpu_faults  tasks/<uid>-<attempt>  logs/
//             cache/ (of the runners)
// job_root/   <namespace>/<uid>/...  quarantine/<uid>: files of jobs that the coordinator does not know
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/backoff.h"
#include "base/clock.h"
#include "base/event_loop.h"
#include "base/file.h"
#include "proto/v1/worker.pb.h"
#include "worker/daemon/fences.h"
#include "worker/daemon/goodput.h"
#include "worker/daemon/gpu/fault_log.h"
#include "worker/daemon/gpu/health.h"
#include "worker/daemon/gpu/job_mapping.h"
#include "worker/daemon/gpu/monitor.h"
#include "worker/daemon/gpu/nvml.h"
#include "worker/daemon/identity.h"
#include "worker/daemon/lease_view.h"
#include "worker/daemon/log_spool.h"
#include "worker/daemon/metrics.h"
#include "worker/daemon/progress_buffer.h"
#include "worker/daemon/rank_io.h"
#include "worker/daemon/session.h"
#include "worker/daemon/spawner.h"
#include "worker/daemon/task.h"
#include "worker/daemon/task_record.h"

namespace trainyard::daemon {

struct GpuOptions {
  std::vector<GpuIdentity> offered;  // a slot each
  GpuPolicy policy;
  std::string job_mapping_dir;                         // for dcgm-exporter; empty: none
  std::string boot_id;                                 // of this host; empty: what the kernel says
  absl::Duration probe_interval = absl::Seconds(10);   // between two looks at GPUs while nothing happens
  absl::Duration silence_timeout = absl::Seconds(30);  // a driver that answers later has hung
  absl::Duration release_timeout = absl::Seconds(50);  // for the memory of a rank that has gone
  absl::Duration release_interval = absl::Seconds(2);  // between two looks meanwhile
};

struct DaemonOptions {
  SessionOptions session;
  std::string state_dir;  // absolute; of this daemon alone
  std::string job_root;   // absolute; shared by the workers of a job
  std::string data_root;  // absolute
  int cpu_slots = 1;
  int driver_slots = 8;  // numbered after the others; each takes one rank of a job that waits for its trials
  GpuOptions gpu;        // their slots are numbered after the CPU slots
  std::string host;      // name of this machine, for people
  std::string address;   // where peers of a job reach it
  std::map<std::string, std::string> labels;
  std::vector<std::string> runner;              // absolute program and arguments; --link_fd is added
  std::vector<std::string> runner_environment;  // changes to the runners' environment, as SpawnRequest has them
  int64_t log_limit_bytes = int64_t{1} << 30;

  Clock* clock = RealClock();
  absl::Duration tick = absl::Milliseconds(100);  // real time between two looks at the timeouts
  absl::Duration progress_interval = absl::Milliseconds(500);
  absl::Duration log_interval = absl::Milliseconds(500);
  absl::Duration register_timeout = absl::Seconds(10);
  absl::Duration resend_after = absl::Seconds(5);  // a report that is not acknowledged
  absl::Duration quick_grace = absl::Seconds(3);
  absl::Duration kill_timeout = absl::Seconds(60);
  absl::Duration drain_report_timeout = absl::Seconds(10);
};

class Daemon {
 public:
  // Locks the state folder (FailedPrecondition, with the holder, if another daemon has it), counts this start, ends
  // what an earlier daemon left behind. `nvml` is needed if GPUs are offered; it was opened after the spawner was
  // forked.
  static absl::StatusOr<std::unique_ptr<Daemon>> Create(DaemonOptions options, Spawner spawner, Metrics* metrics,
                                                        std::unique_ptr<Nvml> nvml = nullptr);
  ~Daemon();

  // Until drained (OK), superseded by a newer daemon, or the spawner is lost.
  absl::Status Run();

  // From any thread: stops all tasks with a checkpoint, takes no more, reports, and lets Run return. Again: without
  // waiting for checkpoints.
  void Drain();

  // The loop, for descriptors that main wants watched (signals).
  EventLoop& loop() { return loop_; }
  const Identity& identity() const { return identity_; }

 private:
  // Waits for a look at the GPUs that began after `asked_at`.
  struct GpuWait {
    uint64_t ticket = 0;
    absl::Duration asked_at, deadline;
  };

  struct RankProcess {
    uint32_t spawn_id = 0;
    std::unique_ptr<RankIo> io;
    std::optional<FileLock> lock;
    RecordedProcess process;
    std::optional<GpuWait> release;  // no process is left; the memory of its GPU may not be free yet
  };

  // A task with what the daemon must remember around it.
  struct Entry {
    std::unique_ptr<Task> task;
    std::unique_ptr<ProgressBuffer> progress;
    std::map<int, RankProcess> ranks;
    std::map<int64_t, v1::CheckpointManifest> commits;  // asked for by rank 0 and not answered yet
    std::optional<v1::TrialGeneration> trials;          // the same, until all its outcomes are here
    uint64_t saved = 0;                                 // sequences of the report
    uint64_t sent = 0;
    uint64_t acked = 0;
    absl::Duration sent_at;
    std::map<int, RankGoodput> goodput;  // by rank
    std::optional<GpuWait> gate;         // nothing is started before its GPUs are seen to be well
    std::string quarantine_dir;          // of the job's files, once the task is over; empty: leave them
    bool was_finished = false;
  };

  struct Slot {
    v1::SlotType type = v1::SLOT_TYPE_CPU;
    int gpu = -1;           // number in gpus_
    std::string stuck;      // a process that cannot be killed
    std::string gpu_fault;  // why nothing may run on its GPU
    bool is_healthy() const { return stuck.empty() && gpu_fault.empty(); }
    const std::string& message() const { return stuck.empty() ? gpu_fault : stuck; }
  };

  struct Gpu {
    GpuIdentity identity;
    GpuFacts facts;
    int slot = 0;
  };

  Daemon(DaemonOptions options, Spawner spawner, Metrics* metrics, FileLock lock, Identity identity, Fences fences,
         LogSpool spool);
  absl::Status TakeUpRecords();

  // daemon_session.cc: what the coordinator says.
  void OnOpen(uint64_t generation);
  void OnClosed(uint64_t generation, const absl::Status& status);
  void OnMessage(uint64_t generation, v1::CoordinatorMessage message);
  void OnRegistered(const v1::Registered& registered);
  void OnCheckpointAck(const v1::CheckpointAck& ack);
  void OnTrialsAck(const v1::TrialsAck& ack);
  void OnStop(const v1::StopTask& stop);
  v1::Register MakeRegister() const;
  void Send(v1::WorkerMessage message);
  void SendSlotHealth();
  void TickSession(absl::Duration now);
  void SendReports(absl::Duration now);
  void SendProgress(Entry& entry);  // all there is
  void SendCommit(Entry& entry, const v1::CheckpointManifest& manifest);
  void SendTrials(const Entry& entry);

  // daemon_tasks.cc: what happens to tasks.
  void OnAssign(const v1::Assign& assign);
  absl::Status Admit(const v1::Assign& assign);
  void Refuse(const v1::Assign& assign, const absl::Status& why);
  void StartRanks(Entry& entry);
  absl::Status SpawnRank(Entry& entry, int rank, int slot);
  void QueueLaunch(Entry& entry, int rank);
  void OnSpawnEvents();
  void OnSpawnEvent(const SpawnEvent& event);
  void OnReport(uint64_t fence, int rank, v1::RunnerReport report);
  void StopAll(v1::StopReason reason, bool checkpoint, std::optional<absl::Duration> grace);
  void TickTasks(absl::Duration now);
  void Perform(Entry& entry);
  void Save(Entry& entry);
  void Finish(Entry& entry);
  Entry* FindEntry(const v1::AttemptRef& ref);
  TaskOptions TaskOptionsFor(const v1::JobSpec* spec) const;
  bool SlotIsBusy(int slot) const;
  bool HasSlot(int slot) const { return slot >= 0 && slot < static_cast<int>(slots_.size()); }
  Slot& SlotOf(const Entry& entry, int rank);
  void FreeSlot(Entry& entry, int rank);
  void AddGoodput(const Entry& entry, int rank, const RankGoodput::Seconds& seconds);
  void CountSlots();

  // daemon_gpus.cc
  absl::Status StartGpus(std::unique_ptr<Nvml> nvml);
  uint64_t AskGpus(absl::Duration now);
  void OnGpuSnapshot(const GpuSnapshot& snapshot);
  void OnXid(const XidEvent& event);
  void TickGpus(absl::Duration now);
  void PassGate(Entry& entry, absl::Duration now);
  void Release(Entry& entry, int rank, absl::Duration now);
  void JudgeGpu(Gpu& gpu);
  bool IsOccupied(int slot) const;
  std::vector<std::string> EnvironmentFor(const Slot& slot) const;
  void MapJob(const Slot& slot, const std::string& job_uid);  // empty: no job

  const DaemonOptions options_;
  EventLoop loop_;
  Spawner spawner_;
  Metrics* const metrics_;
  const FileLock lock_;
  const Identity identity_;
  Fences fences_;
  LogSpool spool_;
  LeaseView lease_;
  std::unique_ptr<Session> session_;

  std::map<uint64_t, Entry> tasks_;                       // by fence
  std::map<uint32_t, std::pair<uint64_t, int>> spawned_;  // spawn id -> fence, rank
  uint32_t next_spawn_id_ = 1;
  std::vector<Slot> slots_;
  bool slots_changed_ = false;

  std::vector<Gpu> gpus_;
  std::optional<FaultLog> gpu_faults_;
  std::optional<JobMapping> job_mapping_;
  std::unique_ptr<GpuMonitor> gpu_monitor_;
  uint64_t gpu_ticket_asked_ = 0, gpu_ticket_seen_ = 0;
  absl::Duration gpu_asked_at_;     // the newest request
  absl::Duration gpu_silent_from_;  // since when a request is open, while one is

  uint64_t generation_ = 0;  // the open stream; 0: none
  bool is_registered_ = false;
  absl::Duration opened_at_;
  absl::Duration heartbeat_interval_ = absl::Seconds(3);
  absl::Duration lease_ttl_ = absl::Seconds(15);
  absl::Duration next_heartbeat_;
  uint64_t heartbeat_sequence_ = 0;
  std::map<uint64_t, absl::Duration> heartbeat_sent_;
  absl::Duration next_progress_, next_logs_;
  int outage_messages_ = 0;
  bool is_fenced_ = false;

  bool is_draining_ = false;
  absl::Duration drained_at_ = absl::InfiniteDuration();  // all tasks over; only reports are left
  std::optional<absl::Status> end_;
};

}  // namespace trainyard::daemon
