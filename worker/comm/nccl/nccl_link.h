// What NcclCommunicator needs of NCCL: groups of byte transfers on a stream, whose progress the caller asks for, so
// that no call can hang. Implementations: NCCL itself (nccl_link_cuda.cu) and one for tests, between threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/core/stream.h"
#include "worker/comm/communicator.h"

namespace trainyard::comm {

struct NcclTransfer {
  int peer = 0;
  void* data = nullptr;
  int64_t bytes = 0;  // above 0
};

enum class NcclProgress {
  kStarting,  // not on the stream yet
  kRunning,   // on the stream: what is enqueued now comes after it
  kDone,
};

// One thread calls everything.
class NcclLink {
 public:
  virtual ~NcclLink() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // What transfers are enqueued on.
  virtual kernels::Stream& stream() = 0;
  // Whether transfers may read and write there.
  virtual bool Reaches(const void* data) const = 0;

  // Each starts when the last one is at least kRunning. A send meets the peer's receive of the same length; several
  // between two ranks meet in their order.
  virtual absl::Status Start(const std::vector<NcclTransfer>& sends, const std::vector<NcclTransfer>& receives) = 0;
  // Every rank's `bytes` to all, in rank order; `in` may be its place in `out`.
  virtual absl::Status StartAllGather(const void* in, void* out, int64_t bytes) = 0;
  // Completes what is under way between the ranks, so that this one can leave. Nothing can be started afterwards.
  virtual absl::Status StartFarewell() = 0;

  // Of what was started last. An error is the transport's: it is of no more use.
  virtual absl::StatusOr<NcclProgress> Poll() = 0;

  // Ends what is under way without waiting for peers, and frees all but the stream. Safe to repeat.
  virtual void Abort() = 0;
};

// Whether this program has NCCL: it was built for CUDA devices.
bool HasNccl();

// Connects the ranks of `lifeline`, on the calling thread's current device. Collective. Rank 0's NCCL id travels over
// `lifeline` together with `tag`, a text that must be equal on all ranks (job, attempt, fence): Aborted if it is not.
// DeadlineExceeded if a rank does not join within `timeout`, Unavailable if one goes, FailedPrecondition without NCCL.
absl::StatusOr<std::unique_ptr<NcclLink>> ConnectNccl(Communicator& lifeline, const std::string& tag,
                                                      absl::Duration timeout);

}  // namespace trainyard::comm
