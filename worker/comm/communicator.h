// What the ranks of an attempt use to talk to each other: R ranks, numbered 0..R-1, that make the same calls in the
// same order. Implementations: local (threads of one process), gloo (processes, TCP) and nccl (GPUs).
//
// Sums are in rank order: out[i] = round(scale * (((x_0[i] + x_1[i]) + x_2[i]) + ...)), in f32, rounded once to the
// storage type. So a sum depends neither on the implementation nor on how the data is cut, and all ranks get equal
// bits.
//
// Data is memory that the host reaches. What a stream is still to write into it must be made known by After before the
// call that sends it; when a call has returned, all it wrote is there, for host and device.
//
// A communicator is used by one thread at a time; only Abort may be called from another. Each communicator is a
// sequence of its own: two threads that talk need two communicators.
//
// Errors: Unavailable when a peer has gone, DeadlineExceeded when it did not take part within options().timeout,
// Aborted after Abort, InvalidArgument when the ranks' calls do not fit together (found by `local` only). A
// communicator never heals: every call after a failed one returns the first error. What the call was to write is then
// undefined.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::comm {

// Bytes that went to and came from other ranks, without the transport's headers.
struct Traffic {
  int64_t bytes_sent = 0;
  int64_t bytes_received = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Sums `data` (f32 or bf16, same shape on all ranks) over the ranks, in place, and scales the sum. Cut as
  // PartOf(size, ranks, r): part r travels to rank r, is summed there and travels back, so each rank sends and receives
  // 2 (R-1)/R of the data.
  virtual absl::Status AllReduceSum(const kernels::TensorView& data, float scale) = 0;
  absl::Status AllReduceSum(float* data, int64_t count) {
    return AllReduceSum(kernels::TensorView(data, kernels::DType::kF32, {count}), 1.0f);
  }

  // The halves of AllReduceSum. After ReduceScatterSum the part PartOf(size, ranks, rank()) of `data` holds the scaled
  // sum and the rest is as it was; AllGatherParts sends each rank's own part to all the others.
  virtual absl::Status ReduceScatterSum(const kernels::TensorView& data, float scale) = 0;
  virtual absl::Status AllGatherParts(const kernels::TensorView& data) = 0;

  // out = rank 0's bytes, rank 1's bytes, ...; rank r gives bytes[r] of them, its own being `in`. `bytes` is equal on
  // all ranks. `in` may be its own place in `out`.
  virtual absl::Status AllGatherBytes(const void* in, const std::vector<int64_t>& bytes, void* out) = 0;

  // Sends the block `in + in_offsets[r]` of send_bytes[r] to rank r and receives recv_bytes[s] from rank s into
  // `out + out_offsets[s]`. The own block is not moved and its sizes are ignored. send_bytes[r] here equals
  // recv_bytes[s] there.
  struct Blocks {
    const char* in = nullptr;
    std::vector<int64_t> in_offsets, send_bytes;
    char* out = nullptr;
    std::vector<int64_t> out_offsets, recv_bytes;
  };
  virtual absl::Status AllToAllBytes(const Blocks& blocks) = 0;

  // `data` of rank `root` goes to all.
  virtual absl::Status Broadcast(void* data, int64_t bytes, int root) = 0;

  // Point to point; the receiver names the sender, the tag (below 2^32) and the exact length. Messages between two
  // ranks with one tag arrive in order. Send may wait for the receiver.
  virtual absl::Status Send(const void* data, int64_t bytes, int to, uint32_t tag) = 0;
  virtual absl::Status Recv(void* data, int64_t bytes, int from, uint32_t tag) = 0;

  // Nobody leaves before all have come.
  virtual absl::Status Barrier() = 0;

  // The next call begins after what is enqueued on `stream` so far. Implementations that move data on the host wait
  // here and return the stream's error.
  virtual absl::Status After(kernels::Stream& stream) { return stream.Synchronize(); }

  // Makes the memory for sums of up to `data_bytes`, so that no later call allocates it; returns all bytes held for
  // sums. Not collective.
  virtual int64_t ReserveSum(int64_t data_bytes) = 0;

  // From any thread: the pending call and all later ones fail, here at once and on the other ranks as if this one had
  // gone.
  virtual void Abort() = 0;

  // OK, or the error that the next call would return: a call has failed, Abort was called, or, where the implementation
  // notices that between calls, a peer has gone. From any thread.
  virtual absl::Status health() const = 0;

  // Sum over all calls so far; read by the thread that makes the calls.
  virtual Traffic traffic() const = 0;
};

// Every rank's string, in rank order; lengths may differ. Two collectives.
absl::StatusOr<std::vector<std::string>> AllGatherStrings(Communicator& communicator, absl::string_view own);

// The root's string.
absl::StatusOr<std::string> BroadcastString(Communicator& communicator, absl::string_view own, int root);

}  // namespace trainyard::comm
