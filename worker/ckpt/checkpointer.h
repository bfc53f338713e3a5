// Writes checkpoints beside the training: Snapshot copies this rank's part into a host buffer and returns; a thread
// writes the shard, gathers the ranks' shard lists, and on rank 0 writes the manifest and asks for the commit.
//
//   all ranks:  shard rank-<r>.safetensors, synced  ->  exchange (file, bytes, digest) or the error
//   rank 0:     manifest.json, synced with its folders  ->  commit(manifest)  ->  tell all ranks
//   committed:  rank 0 removes checkpoints beyond keep_last and left-overs of earlier attempts
//   failed:     every rank removes what it wrote; a warning names the cause; training goes on
//
// A full disk or a refused commit is such a failure: the next Snapshot tries again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/v1/checkpoint.pb.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/comm/communicator.h"

namespace trainyard::ckpt {

struct CheckpointerOptions {
  std::string job_root;  // folder of the job, shared by its ranks
  std::string job_uid;
  int32_t attempt = 0;
  uint64_t fence = 0;
  std::string spec_digest;
  int keep_last = 3;  // >= 1
  // Committed before this attempt, newest first, as Launch lists them.
  std::vector<v1::CheckpointManifest> committed;
};

// Called on rank 0, on the checkpointer's thread; may block (bounded by itself). OK means the record is durable.
using CommitFunction = std::function<absl::Status(const v1::CheckpointManifest&)>;
using SaveFunction = std::function<absl::Status(CheckpointWriter&)>;

struct CheckpointResult {
  int64_t step = -1;  // -1: none yet
  absl::Status status;
  double blocking_seconds = 0;  // what Snapshot kept from the training
  double write_seconds = 0;     // shard on disk
  double commit_seconds = 0;    // from there to the end
  int64_t bytes = 0;            // of this rank's shard
};

class Checkpointer {
 public:
  // `background` is borrowed, and used only by this object while it lives; null for a world of one.
  static std::unique_ptr<Checkpointer> Create(const CheckpointerOptions& options, comm::Communicator* background,
                                              CommitFunction commit);
  virtual ~Checkpointer() = default;  // waits for the checkpoint under way

  // Takes the memory for snapshots now, so that it is planned and no later step allocates it. Returns its bytes.
  virtual absl::StatusOr<int64_t> Reserve(const SaveFunction& save) = 0;

  // At a step boundary, on all ranks at the same step. Waits for the checkpoint before, if that is not finished; then
  // copies. Errors are those of `save` itself; everything later is in the result.
  virtual absl::Status Snapshot(int64_t step, const SaveFunction& save) = 0;

  // Waits until no checkpoint is under way; the outcome of the last one (equal on all ranks as to success).
  virtual CheckpointResult Wait() = 0;

  // Without waiting: the outcome of the last one that has finished.
  virtual CheckpointResult last() const = 0;
  virtual bool busy() const = 0;
  // Highest step committed in this attempt or listed in the options, -1 if none.
  virtual int64_t committed_step() const = 0;
};

}  // namespace trainyard::ckpt
