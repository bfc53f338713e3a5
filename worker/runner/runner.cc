#include "worker/runner/runner.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "proto/spec/references.h"
#include "worker/ckpt/checkpointer.h"
#include "worker/comm/nccl/data_transport.h"
#include "worker/comm/rendezvous.h"
#include "worker/runner/fault.h"
#include "worker/runner/health.h"
#include "worker/runner/inbox.h"
#include "worker/runner/link.h"
#include "worker/runner/link_trials.h"
#include "worker/runner/loop.h"
#include "worker/runner/rank_context.h"
#include "worker/runner/restore.h"
#include "worker/runner/stop_flag.h"

namespace trainyard::runner {
namespace {

constexpr absl::Duration kLaunchTimeout = absl::Seconds(60);
// Longer than the worker lives without its coordinator (CP-25), so an outage alone fails no checkpoint.
constexpr absl::Duration kCommitTimeout = absl::Minutes(15);
constexpr absl::Duration kPrintInterval = absl::Seconds(1);

// SIGTERM as a thread that reads, so that what follows needs no care for signal handlers.
class Terminator {
 public:
  explicit Terminator(StopFlag* stop) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    signal(SIGPIPE, SIG_IGN);
    const int fd = signalfd(-1, &set, SFD_CLOEXEC);
    // Ends with the process; the flag lives as long.
    std::thread([fd, stop] {
      signalfd_siginfo info;
      while (read(fd, &info, sizeof(info)) == sizeof(info)) stop->Terminate();
    }).detach();
  }
};

// A line on stdout a second at most: what `trainyard logs` shows of a healthy run.
class StepPrinter {
 public:
  void operator()(const jobs::UnitResult& unit) {
    const absl::Duration now = RealClock()->Monotonic();
    if (now - last_ < kPrintInterval && !unit.done) return;
    last_ = now;
    std::string line = absl::StrCat("step ", unit.step, "/", unit.total_steps);
    for (const auto& [name, value] : unit.metrics) absl::StrAppend(&line, "  ", name, " ", value);
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }

 private:
  absl::Duration last_ = -absl::InfiniteDuration();
};

class Rank {
 public:
  // The objects outlive the rank's work and are never destroyed: other threads use them until _exit.
  Rank(Link* link, Inbox* inbox, StopFlag* stop, const RankOptions& options) : link_(link), inbox_(inbox), stop_(stop) {
    if (options.cache_bytes > 0) {
      cache_ = std::make_unique<cache::FileCache>(
          cache::FileCacheOptions{.directory = options.cache_dir, .limit_bytes = options.cache_bytes});
    }
  }

  // OK: done, or stopped as asked. `where_` then and otherwise says how far it came.
  absl::Status Run(const MakeJobFunction& make_job) {
    where_ = "launch";
    TY_ASSIGN_OR_RETURN(launch_, inbox_->WaitLaunch(kLaunchTimeout));
    LogInfo("rank ", launch_.rank(), " of ", launch_.world_size(), ", job ", launch_.ref().job_uid(), ", attempt ",
            launch_.ref().attempt(), ", fence ", launch_.ref().fence());
    where_ = "spec";
    TY_ASSIGN_OR_RETURN(options_, spec::ParseJob(launch_.spec()));
    TY_RETURN_IF_ERROR(ResolveReferences());
    if (spec::IsDriver(options_.kind) && launch_.world_size() != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("a job of kind ", spec::KindName(launch_.spec()), " has one rank, not ", launch_.world_size()));
    }
    TY_ASSIGN_OR_RETURN(std::unique_ptr<jobs::Job> job, make_job(options_));
    if (job == nullptr) {
      return absl::UnimplementedError(
          absl::StrCat("this version cannot run jobs of kind ", spec::KindName(launch_.spec())));
    }
    job_ = std::move(job);
    TY_RETURN_IF_ERROR(Prepare());
    const absl::StatusOr<v1::StartTraining> start = inbox_->WaitStart();
    if (absl::IsCancelled(start.status())) return absl::OkStatus();
    TY_RETURN_IF_ERROR(start.status());
    const absl::Status trained = Train(*start);
    if (trained.ok()) Leave();
    return trained;
  }

  const std::string& where() const { return where_; }
  // The job said what ShouldStop made it say.
  bool was_stopped(const absl::Status& status) const {
    return stop_->requested() && (absl::IsCancelled(status) || stop_->abandoned());
  }

 private:
  void Report(const v1::RunnerReport& report) {
    const absl::Status sent = link_->Send(report);
    if (!sent.ok()) LogDebug("report not sent: ", sent.message());  // the link's reader ends the process
  }

  absl::Status ResolveReferences() {
    for (const v1::ResolvedArtifact& artifact : launch_.artifacts()) {
      const std::string& name = artifact.ref().artifact();
      spec::ResolveReference(artifact.ref().job(), name.empty() ? std::string("model") : name, artifact.path(),
                             &options_);
    }
    return spec::CheckResolved(options_);
  }

  absl::Status Prepare() {
    where_ = "prepare";
    const v1::AttemptRef& ref = launch_.ref();
    jobs::JobPlace place;
    place.rank = launch_.rank();
    place.world_size = launch_.world_size();
    place.local_rank = launch_.local_rank();
    place.job_uid = ref.job_uid();
    place.attempt = ref.attempt();
    place.fence = ref.fence();
    place.attempt_dir = absl::StrCat(launch_.job_dir(), "/attempt-", ref.attempt(), "-fence-", ref.fence());
    place.data_root = launch_.data_root();
    place.spec = launch_.spec();
    TY_RETURN_IF_ERROR(MakeDirs(place.attempt_dir));
    attempt_dir_ = place.attempt_dir;
    TY_RETURN_IF_ERROR(TryDisk(attempt_dir_));
    if (options_.world.slot_type == spec::SlotType::kGpu && !spec::IsDriver(options_.kind)) {
      TY_RETURN_IF_ERROR(TryDevice(kernels::Device::kCuda));
    }
    context_ = std::make_unique<RankContext>(
        std::move(place), stop_, [this](const v1::RunnerReport& report) { Report(report); }, RealClock());
    context_->OfferCache(cache_.get());
    context_->SetHistory(launch_.follows_failure(), launch_.reached_step());
    TY_RETURN_IF_ERROR(job_->Prepare(*context_));

    where_ = "restore";
    context_->EnterSection("restore");
    restore_.job_dir = launch_.job_dir();
    restore_.committed.assign(launch_.checkpoints().begin(), launch_.checkpoints().end());
    restore_.rank = launch_.rank();
    TY_ASSIGN_OR_RETURN(const int64_t step, RestoreNewest(restore_, *job_));

    where_ = "rendezvous";
    context_->EnterSection("connect");
    TY_ASSIGN_OR_RETURN(rendezvous_,
                        comm::Rendezvous::Create({.tag = {ref.job_uid(), ref.attempt(), ref.fence()},
                                                  .rank = launch_.rank(),
                                                  .world_size = launch_.world_size(),
                                                  .host = launch_.address().empty() ? "127.0.0.1" : launch_.address(),
                                                  .timeout = options_.communication.timeout}));
    v1::RunnerReport report;
    report.mutable_ready()->set_comm_address(rendezvous_->LocalAddress());
    report.mutable_ready()->set_restored_step(step);
    for (const auto& [purpose, bytes] : job_->MemoryPlan()) {
      (*report.mutable_ready()->mutable_memory_plan())[purpose] = bytes;
    }
    Report(report);
    return absl::OkStatus();
  }

  absl::Status Train(const v1::StartTraining& start) {
    where_ = "connect";
    std::vector<std::string> blobs(static_cast<size_t>(launch_.world_size()));
    for (const v1::RankAddress& address : start.ranks()) {
      if (address.rank() < 0 || address.rank() >= launch_.world_size()) {
        return absl::AbortedError(
            absl::StrCat("the rank table names rank ", address.rank(), " in a world of ", launch_.world_size()));
      }
      blobs[static_cast<size_t>(address.rank())] = address.comm_address();
    }
    stop_->OnAbandon([this] { Abort(); });
    absl::StatusOr<comm::Communicators> connected = rendezvous_->Connect(blobs, start.membership_epoch());
    TY_RETURN_IF_ERROR(connected.status());
    if (options_.world.slot_type == spec::SlotType::kGpu) {
      TY_RETURN_IF_ERROR(
          comm::ChooseDataTransport({.tag = {launch_.ref().job_uid(), launch_.ref().attempt(), launch_.ref().fence()},
                                     .device = kernels::Device::kCuda,
                                     .timeout = options_.communication.timeout},
                                    &*connected));
    }
    {
      MutexLock lock(&communicators_mutex_);
      communicators_ = *std::move(connected);
    }
    if (stop_->abandoned()) Abort();  // it came while we connected
    context_->Connected(communicators_.data.get(), communicators_.control.get());
    if (spec::IsDriver(options_.kind) && launch_.rank() == 0) {
      trials_ = std::make_unique<LinkTrials>(context_.get(), inbox_,
                                             [this](const v1::RunnerReport& report) { Report(report); });
      context_->OfferTrials(trials_.get());
    }

    where_ = "restore";
    context_->EnterSection("restore");
    TY_ASSIGN_OR_RETURN(const int64_t step, AgreeOnRestore(restore_, *job_, *communicators_.control));
    context_->SetStep(step, spec::TotalSteps(options_));

    where_ = "train";
    checkpointer_ = ckpt::Checkpointer::Create({.job_root = launch_.job_dir(),
                                                .job_uid = launch_.ref().job_uid(),
                                                .attempt = launch_.ref().attempt(),
                                                .fence = launch_.ref().fence(),
                                                .spec_digest = spec::SpecDigest(launch_.spec()),
                                                .keep_last = options_.checkpoint.keep_last,
                                                .committed = restore_.committed},
                                               launch_.world_size() > 1 ? communicators_.background.get() : nullptr,
                                               [this](const v1::CheckpointManifest& manifest) {
                                                 v1::RunnerReport report;
                                                 *report.mutable_commit_checkpoint() = manifest;
                                                 Report(report);
                                                 return inbox_->WaitCommit(manifest.step(), kCommitTimeout);
                                               });
    TY_ASSIGN_OR_RETURN(const int64_t snapshot_bytes,
                        checkpointer_->Reserve([this](ckpt::CheckpointWriter& writer) { return job_->Save(writer); }));
    TY_RETURN_IF_ERROR(CheckRoom(attempt_dir_, snapshot_bytes));
    LoopParts parts{.job = job_.get(),
                    .context = context_.get(),
                    .control = communicators_.control.get(),
                    .checkpointer = checkpointer_.get(),
                    .stop = stop_,
                    .checkpoint = options_.checkpoint,
                    .total_steps = spec::TotalSteps(options_)};
    if (launch_.rank() == 0) parts.on_unit = StepPrinter();
    TY_ASSIGN_OR_RETURN(const LoopEnd end, RunLoop(parts));
    if (!end.is_done) return absl::OkStatus();
    // The last word all together: a rank that left early would look like a failure to those that still talk to it. On
    // the communicator with the long timeout, as rank 0 may export for minutes.
    where_ = "finish";
    checkpointer_.reset();
    TY_RETURN_IF_ERROR(communicators_.background->Barrier());
    v1::RunnerReport report;
    *report.mutable_result() = end.result;
    Report(report);
    return absl::OkStatus();
  }

  // In good order: communicators say farewell when they are destroyed, and peers that still wait for their last message
  // then do not take us for lost.
  void Leave() {
    checkpointer_.reset();
    job_.reset();  // may talk on a thread of its own
    comm::Communicators leaving;
    {
      MutexLock lock(&communicators_mutex_);
      std::swap(leaving, communicators_);
    }
  }

  void Abort() {
    rendezvous_->Abort();
    MutexLock lock(&communicators_mutex_);
    for (comm::Communicator* communicator :
         {communicators_.data.get(), communicators_.control.get(), communicators_.background.get()}) {
      if (communicator != nullptr) communicator->Abort();
    }
  }

  Link* const link_;
  Inbox* const inbox_;
  StopFlag* const stop_;
  std::string attempt_dir_;
  std::string where_;
  v1::Launch launch_;
  spec::JobOptions options_;
  RestoreOptions restore_;
  std::unique_ptr<cache::FileCache> cache_;
  std::unique_ptr<RankContext> context_;
  std::unique_ptr<LinkTrials> trials_;
  std::unique_ptr<jobs::Job> job_;  // ends before the context
  std::unique_ptr<comm::Rendezvous> rendezvous_;
  Mutex communicators_mutex_;  // against Abort while they are set
  comm::Communicators communicators_;
  std::unique_ptr<ckpt::Checkpointer> checkpointer_;
};

}  // namespace

int RunRank(UniqueFd link_fd, const RankOptions& options, const MakeJobFunction& make_job) {
  auto* stop = new StopFlag();
  const Terminator terminator(stop);
  auto* inbox = new Inbox(stop);
  auto* link = Link::Start(std::move(link_fd), {.on_command =
                                                    [=](v1::RunnerCommand command) {
                                                      inbox->Put(std::move(command));
                                                      inbox->Wake();
                                                    },
                                                .on_closed =
                                                    [](absl::Status status) {
                                                      // Nobody is left to report to, and nothing may be left behind.
                                                      LogError(status.message(), "; leaving");
                                                      _exit(kExitInfra);
                                                    }})
                   .release();
  auto* rank = new Rank(link, inbox, stop, options);
  const absl::Status status = rank->Run(make_job);
  if (status.ok() || rank->was_stopped(status)) return kExitDone;
  const Fault fault = FaultOf(status, rank->where());
  LogError(fault.failure.message());
  v1::RunnerReport report;
  *report.mutable_failure() = fault.failure;
  link->Send(report).IgnoreError();  // the exit code says the class as well
  return fault.exit_code;
}

}  // namespace trainyard::runner
