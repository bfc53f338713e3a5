#include "worker/ckpt/checkpointer.h"

#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "worker/ckpt/manifest.h"
#include "worker/ckpt/retention.h"
#include "worker/ckpt/snapshot.h"

namespace trainyard::ckpt {
namespace {

double SecondsSince(absl::Duration start) {
  return absl::ToDoubleSeconds(RealClock()->Monotonic() - start);
}

// A Status as bytes for the other ranks: its code, then `payload` if OK and else the message.
std::string Pack(const absl::Status& status, const std::string& payload) {
  return absl::StrCat(std::string(1, static_cast<char>(status.code())), status.ok() ? payload : status.message());
}

absl::StatusOr<std::string> Unpack(const std::string& packed, int rank) {
  if (packed.empty()) return absl::InternalError(absl::StrCat("rank ", rank, " reported nothing"));
  const auto code = static_cast<absl::StatusCode>(packed[0]);
  if (code == absl::StatusCode::kOk) return packed.substr(1);
  return absl::Status(code, absl::StrCat("rank ", rank, ": ", packed.substr(1)));
}

// The coordinator has said no, as opposed to: nobody knows whether it has committed. In the second case the files stay:
// if the record exists, the next attempt resumes from them, else it removes them.
bool IsRefusal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return true;
    default:
      return false;
  }
}

class AsyncCheckpointer final : public Checkpointer {
 public:
  AsyncCheckpointer(const CheckpointerOptions& options, comm::Communicator* background, CommitFunction commit)
      : options_(options),
        background_(background),
        rank_(background == nullptr ? 0 : background->rank()),
        ranks_(background == nullptr ? 1 : background->size()),
        commit_(std::move(commit)),
        snapshot_(rank_, ranks_),
        committed_(options.committed) {
    TY_CHECK_GE(options_.keep_last, 1);
    for (const v1::CheckpointManifest& manifest : committed_) {
      committed_step_ = std::max(committed_step_, manifest.step());
    }
    thread_ = std::thread([this] { Loop(); });
  }

  ~AsyncCheckpointer() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      wake_.NotifyAll();
    }
    thread_.join();
  }

  absl::StatusOr<int64_t> Reserve(const SaveFunction& save) override {
    WaitUntilIdle();
    CheckpointWriter writer;
    TY_RETURN_IF_ERROR(save(writer));
    TY_RETURN_IF_ERROR(snapshot_.Reserve(writer));
    return snapshot_.bytes();
  }

  absl::Status Snapshot(int64_t step, const SaveFunction& save) override {
    const absl::Duration start = RealClock()->Monotonic();
    WaitUntilIdle();
    CheckpointWriter writer;
    TY_RETURN_IF_ERROR(save(writer));
    TY_RETURN_IF_ERROR(snapshot_.Take(writer));
    MutexLock lock(&mutex_);
    has_work_ = true;
    next_ = CheckpointResult();
    next_.step = step;
    next_.blocking_seconds = SecondsSince(start);
    wake_.NotifyAll();
    return absl::OkStatus();
  }

  CheckpointResult Wait() override {
    WaitUntilIdle();
    return last();
  }

  CheckpointResult last() const override {
    MutexLock lock(&mutex_);
    return last_;
  }

  bool busy() const override {
    MutexLock lock(&mutex_);
    return has_work_;
  }

  int64_t committed_step() const override {
    MutexLock lock(&mutex_);
    return committed_step_;
  }

 private:
  void WaitUntilIdle() {
    MutexLock lock(&mutex_);
    while (has_work_) idle_.Wait(&mutex_);  // bounded by the communicator's timeout and the commit's own
  }

  void Loop() {
    while (true) {
      CheckpointResult result;
      {
        MutexLock lock(&mutex_);
        while (!has_work_ && !stopping_) wake_.Wait(&mutex_);
        if (!has_work_) return;
        result = next_;
      }
      result.status = Write(&result);
      if (!result.status.ok() && rank_ == 0) {
        LogWarning("checkpoint of step ", result.step,
                   " failed, training goes on without it: ", result.status.ToString());
      }
      MutexLock lock(&mutex_);
      if (result.status.ok()) committed_step_ = std::max(committed_step_, result.step);
      last_ = result;
      has_work_ = false;
      idle_.NotifyAll();
    }
  }

  std::string FolderOf(const std::string& directory) const { return JoinPath(options_.job_root, directory); }

  absl::Status Write(CheckpointResult* result) {
    const std::string directory = CheckpointDirectory(options_.attempt, options_.fence, result->step);
    const std::string folder = FolderOf(directory);

    absl::Duration start = RealClock()->Monotonic();
    v1::CheckpointShard own;
    const absl::Status written = WriteShard(folder, &own);
    result->bytes = own.bytes();
    result->write_seconds = SecondsSince(start);
    start = RealClock()->Monotonic();

    v1::CheckpointManifest manifest;
    absl::Status status = GatherShards(written, own, &manifest);
    bool remove_all = false;  // all ranks are known to have stopped writing
    if (status.ok()) {
      manifest.set_directory(directory);
      manifest.set_step(result->step);
      absl::Status commit;
      if (rank_ == 0) commit = CommitManifest(folder, manifest);
      remove_all = !commit.ok() && IsRefusal(commit);
      status = ShareOutcome(commit);
    } else {
      remove_all = heard_from_all_;
      if (!heard_from_all_) RemoveOwn(folder);
    }
    if (rank_ == 0) {
      if (remove_all) Remove(directory);
      if (status.ok()) RemoveObsolete(manifest);
    }
    result->commit_seconds = SecondsSince(start);
    return status;
  }

  absl::Status WriteShard(const std::string& folder, v1::CheckpointShard* own) {
    TY_RETURN_IF_ERROR(MakeDirs(folder));
    own->set_file(ShardFile(rank_));
    TY_ASSIGN_OR_RETURN(const model::SafetensorsFileInfo info, snapshot_.Write(JoinPath(folder, own->file())));
    own->set_bytes(static_cast<int64_t>(info.bytes));
    own->set_digest(info.digest);
    return SyncDir(folder);
  }

  // Fills the manifest with everybody's shards, or returns the error of the first rank that has one; both are equal on
  // all ranks. heard_from_all_ is false if instead the communicator failed.
  absl::Status GatherShards(const absl::Status& written, const v1::CheckpointShard& own,
                            v1::CheckpointManifest* manifest) {
    std::vector<std::string> reports = {Pack(written, own.SerializeAsString())};
    heard_from_all_ = true;
    if (background_ != nullptr) {
      absl::StatusOr<std::vector<std::string>> gathered = comm::AllGatherStrings(*background_, reports[0]);
      heard_from_all_ = gathered.ok();
      if (!gathered.ok()) return Annotate(gathered.status(), "gathering the shard lists");
      reports = *std::move(gathered);
    }
    for (int rank = 0; rank < ranks_; ++rank) {
      TY_ASSIGN_OR_RETURN(const std::string bytes, Unpack(reports[static_cast<size_t>(rank)], rank));
      if (!manifest->add_shards()->ParseFromString(bytes)) {
        return absl::InternalError(absl::StrCat("rank ", rank, " reported a malformed shard"));
      }
    }
    manifest->set_world_size(ranks_);
    manifest->set_job_uid(options_.job_uid);
    manifest->set_attempt(options_.attempt);
    manifest->set_fence(options_.fence);
    manifest->set_spec_digest(options_.spec_digest);
    manifest->set_format_version(kManifestFormatVersion);
    return absl::OkStatus();
  }

  // Everything is durable before the commit is asked for.
  absl::Status CommitManifest(const std::string& folder, const v1::CheckpointManifest& manifest) {
    const auto write = [&]() -> absl::Status {
      TY_RETURN_IF_ERROR(WriteManifest(folder, manifest));
      const std::string attempt = FolderOf(AttemptDirectory(options_.attempt, options_.fence));
      TY_RETURN_IF_ERROR(SyncDir(JoinPath(attempt, "checkpoints")));
      TY_RETURN_IF_ERROR(SyncDir(attempt));
      return SyncDir(options_.job_root);
    };
    if (const absl::Status status = write(); !status.ok()) {
      // Nobody has been asked yet, so the files can go whatever the code.
      Remove(manifest.directory());
      return status;
    }
    return Annotate(commit_(manifest), "commit");
  }

  absl::Status ShareOutcome(const absl::Status& commit) {
    if (background_ == nullptr) return commit;
    absl::StatusOr<std::string> outcome = comm::BroadcastString(*background_, Pack(commit, ""), 0);
    // On rank 0 the commit counts, whether or not the others could be told.
    if (rank_ == 0) return commit;
    if (!outcome.ok()) return Annotate(outcome.status(), "waiting for the commit");
    return Unpack(*outcome, 0).status();
  }

  // What this rank alone has written; the folder goes with the last file in it.
  void RemoveOwn(const std::string& folder) {
    RemoveTree(JoinPath(folder, ShardFile(rank_))).IgnoreError();  // a later attempt removes it
    rmdir(folder.c_str());
  }

  void Remove(const std::string& directory) {
    const absl::Status removed = RemoveTree(FolderOf(directory));
    if (!removed.ok()) LogWarning("cannot remove checkpoint ", directory, ": ", removed.ToString());
  }

  void RemoveObsolete(const v1::CheckpointManifest& newest) {
    committed_.insert(committed_.begin(), newest);
    for (const v1::CheckpointManifest& old : DropOld(options_.keep_last, &committed_)) {
      // A list from outside: nothing is removed that is no checkpoint of this job.
      if (CheckManifest(old).ok()) Remove(old.directory());
    }
    for (const std::string& stale : StaleCheckpoints(options_.job_root, options_.fence, committed_)) Remove(stale);
  }

  const CheckpointerOptions options_;
  comm::Communicator* const background_;
  const int rank_, ranks_;
  const CommitFunction commit_;

  // Used by the caller while idle and by the thread while there is work.
  ckpt::Snapshot snapshot_;
  // The thread's.
  std::vector<v1::CheckpointManifest> committed_;  // newest first
  bool heard_from_all_ = true;

  mutable Mutex mutex_;
  CondVar wake_, idle_;
  bool has_work_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  CheckpointResult next_ ABSL_GUARDED_BY(mutex_);
  CheckpointResult last_ ABSL_GUARDED_BY(mutex_);
  int64_t committed_step_ ABSL_GUARDED_BY(mutex_) = -1;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace

std::unique_ptr<Checkpointer> Checkpointer::Create(const CheckpointerOptions& options, comm::Communicator* background,
                                                   CommitFunction commit) {
  return std::make_unique<AsyncCheckpointer>(options, background, std::move(commit));
}

}  // namespace trainyard::ckpt
