#include "coordinator/api/coordinator_server.h"

#include <prometheus/registry.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/http/status_server.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "coordinator/api/coordinator_metrics.h"
#include "coordinator/api/engine.h"
#include "coordinator/api/jobs_service.h"
#include "coordinator/api/log_follower.h"
#include "coordinator/api/log_store.h"
#include "coordinator/api/rpc_metrics.h"
#include "coordinator/api/watch_hub.h"
#include "coordinator/api/workers_service.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "coordinator/store/sqlite_store.h"
#include "coordinator/web/web_view.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/server.h"

namespace trainyard::coordinator {
namespace {

constexpr absl::Duration kGaugeInterval = absl::Seconds(1);
constexpr absl::Duration kBookmarkInterval = absl::Seconds(10);

// What happens after a commit besides answers and pushes.
class Listener final : public EngineListener {
 public:
  Listener(WatchHub* hub, CoordinatorMetrics* metrics, LogStore* logs) : hub_(hub), metrics_(metrics), logs_(logs) {}

  void SetServer(RpcServer* server) {
    MutexLock lock(&mutex_);
    server_ = server;
  }

  void OnCommitted(const Effects& effects, const Core& core, Now now) override {
    if (!effects.writes.empty() || !effects.progress.empty()) hub_->Publish(effects);
    metrics_->Count(effects);
    for (const Write& write : effects.writes) {
      if (const auto* deleted = std::get_if<DeleteJob>(&write)) logs_->Remove(deleted->uid);
    }
    for (const Write& write : effects.writes) {
      if (const auto* event = std::get_if<PutEvent>(&write)) LogChange(*event->job);
    }
    if (now.mono >= next_gauges_) {
      next_gauges_ = now.mono + kGaugeInterval;
      metrics_->Observe(core, now);
      metrics_->SetWatchers(hub_->watchers(), hub_->dropped());
    }
    if (now.mono >= next_bookmark_) {
      next_bookmark_ = now.mono + kBookmarkInterval;
      hub_->Bookmark();
    }
  }

  void OnCommit(absl::Duration took, size_t writes, const absl::Status& status) override {
    metrics_->Commit(took, writes, status);
  }

  void OnSchedulePass(absl::Duration took) override { metrics_->SchedulePass(took); }

  void OnWritable(bool writable) override {
    metrics_->SetWritable(writable);
    MutexLock lock(&mutex_);
    is_writable_ = writable;
    if (server_ != nullptr) server_->SetServing(writable);
  }

  // Calls are taken, and what they change can be stored.
  absl::Status IsReady() {
    MutexLock lock(&mutex_);
    if (server_ == nullptr) return absl::UnavailableError("the services are not open");
    if (!is_writable_) return absl::UnavailableError("the store cannot be written");
    return absl::OkStatus();
  }

 private:
  // One line a change of state, at the end of a job with its cause.
  void LogChange(const v1::Job& job) {
    if (!IsTerminal(job.state()) && job.state() != v1::JOB_STATE_RECOVERING) {
      LogDebug("job ", job.uid(), " (", job.name(), ") is ", ShortName(job.state()));
      return;
    }
    const v1::ExitRecord& exit =
        job.has_exit() || job.attempts_size() == 0 ? job.exit() : job.attempts(job.attempts_size() - 1).exit();
    LogInfo("job ", job.uid(), " (", job.name(), ") is ", ShortName(job.state()), ": ", exit.reason(),
            exit.message().empty() ? "" : ": ", exit.message());
  }

  WatchHub* const hub_;
  CoordinatorMetrics* const metrics_;
  LogStore* const logs_;
  absl::Duration next_gauges_ = absl::ZeroDuration();
  absl::Duration next_bookmark_ = absl::ZeroDuration();
  Mutex mutex_;
  RpcServer* server_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool is_writable_ ABSL_GUARDED_BY(mutex_) = true;
};

class Server final : public CoordinatorServer {
 public:
  ~Server() override { Stop(absl::Seconds(20)); }

  absl::Status Open(const CoordinatorOptions& options);

  std::string address() const override { return rpc_->address(); }
  std::string metrics_address() const override { return metrics_address_; }
  std::string web_address() const override { return web_address_; }
  uint64_t leader_epoch() const override { return leader_epoch_; }
  void Stop(absl::Duration limit) override;

 private:
  absl::Status IsLive();

  // In order of construction; each uses those before it.
  std::unique_ptr<LogStore> logs_;
  std::unique_ptr<CoordinatorMetrics> metrics_;
  std::unique_ptr<RpcMetrics> rpc_metrics_;
  std::unique_ptr<WatchHub> hub_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<LogFollower> follower_;
  std::unique_ptr<JobsService> jobs_;
  std::unique_ptr<WorkersService> workers_;
  std::unique_ptr<StatusServer> endpoint_;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<WebView> web_;
  std::string metrics_address_;
  std::string web_address_;
  uint64_t leader_epoch_ = 0;
};

// The engine's thread answers.
absl::Status Server::IsLive() {
  constexpr absl::Duration kLimit = absl::Seconds(5);
  struct Answer {
    Mutex mutex;
    CondVar changed;
    bool has_come ABSL_GUARDED_BY(mutex) = false;
  };
  const auto answer = std::make_shared<Answer>();
  engine_->Read([answer](const Core&, Store&, Now) {
    MutexLock lock(&answer->mutex);
    answer->has_come = true;
    answer->changed.NotifyAll();
  });
  const absl::Time deadline = absl::Now() + kLimit;
  MutexLock lock(&answer->mutex);
  while (!answer->has_come) {
    if (!answer->changed.WaitFor(&answer->mutex, deadline - absl::Now()) && !answer->has_come) {
      return absl::DeadlineExceededError(
          absl::StrCat("the engine has not answered within ", absl::FormatDuration(kLimit)));
    }
  }
  return absl::OkStatus();
}

absl::Status Server::Open(const CoordinatorOptions& options) {
  TY_RETURN_IF_ERROR(Validate(options.timing));
  TY_ASSIGN_OR_RETURN(std::unique_ptr<Store> store, OpenSqliteStore({.directory = options.data_dir}));
  TY_ASSIGN_OR_RETURN(const Records records, store->Load());
  uint64_t compacted = 0;
  TY_ASSIGN_OR_RETURN(std::vector<StoredEvent> events, store->LoadEvents(&compacted));
  leader_epoch_ = records.leader_epoch;
  LogInfo("opened ", options.data_dir, ": ", records.jobs.size(), " jobs, ", records.workers.size(),
          " workers, revision ", records.revision, ", leader epoch ", leader_epoch_);

  logs_ = std::make_unique<LogStore>(JoinPath(options.data_dir, "logs"));
  metrics_ = std::make_unique<CoordinatorMetrics>(leader_epoch_);
  rpc_metrics_ = std::make_unique<RpcMetrics>(metrics_->registry().get());
  hub_ = std::make_unique<WatchHub>(WatchHubOptions(), records.jobs, std::move(events), compacted, records.revision);
  listener_ = std::make_unique<Listener>(hub_.get(), metrics_.get(), logs_.get());
  TY_ASSIGN_OR_RETURN(engine_,
                      Engine::Create({.timing = options.timing}, std::move(store), options.clock, listener_.get()));
  follower_ = std::make_unique<LogFollower>();
  if (!options.metrics_listen.empty()) {
    TY_ASSIGN_OR_RETURN(endpoint_, StatusServer::Start({.listen = options.metrics_listen,
                                                        .metrics = metrics_->registry(),
                                                        .is_live = [this] { return IsLive(); },
                                                        .is_ready = [this] { return listener_->IsReady(); }}));
    metrics_address_ =
        absl::StrCat(options.metrics_listen.substr(0, options.metrics_listen.rfind(':')), ":", endpoint_->port());
  }
  v1::ServerInfo info;
  info.set_version(kVersion);
  info.set_leader_epoch(leader_epoch_);
  *info.mutable_start_time() = ToProto(options.clock->Now());
  info.set_metrics_address(metrics_address());
  jobs_ = std::make_unique<JobsService>(JobsServiceParts{.engine = engine_.get(),
                                                         .watch_hub = hub_.get(),
                                                         .logs = logs_.get(),
                                                         .follower = follower_.get(),
                                                         .metrics = metrics_.get(),
                                                         .info = info});
  workers_ = std::make_unique<WorkersService>(engine_.get(), logs_.get());
  TY_ASSIGN_OR_RETURN(rpc_, RpcServer::Start({.address = options.listen,
                                              .security = {.insecure = options.insecure, .tls = options.tls},
                                              .max_receive_bytes = kMaxSessionMessageBytes,
                                              .observer = rpc_metrics_.get()},
                                             {jobs_.get(), workers_.get()}));
  listener_->SetServer(rpc_.get());
  if (!options.web_listen.empty()) {
    TY_ASSIGN_OR_RETURN(
        web_,
        WebView::Start({.listen = options.web_listen, .security = {.insecure = options.insecure, .tls = options.tls}},
                       {.engine = engine_.get(), .hub = hub_.get(), .logs = logs_.get(), .info = info}));
    web_address_ = absl::StrCat(options.web_listen.substr(0, options.web_listen.rfind(':')), ":", web_->port());
  }
  return absl::OkStatus();
}

void Server::Stop(absl::Duration limit) {
  if (rpc_ != nullptr) {
    rpc_->SetServing(false);
    jobs_->EndFollowing();
    // Watches end by themselves only with their jobs; sessions never do.
    hub_->Close(ErrorWithReason(absl::StatusCode::kUnavailable, "STOPPING", "the coordinator is stopping"));
    engine_->CloseSessions(ErrorWithReason(absl::StatusCode::kUnavailable, "STOPPING", "the coordinator is stopping"));
    rpc_->Shutdown(limit * 0.75);
    listener_->SetServer(nullptr);
  }
  if (web_ != nullptr) web_->Stop();
  if (follower_ != nullptr) follower_->Stop();
  if (engine_ != nullptr) engine_->Stop();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(const CoordinatorOptions& options) {
  auto server = std::make_unique<Server>();
  TY_RETURN_IF_ERROR(server->Open(options));
  return std::unique_ptr<CoordinatorServer>(std::move(server));
}

}  // namespace trainyard::coordinator
