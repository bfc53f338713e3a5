// A communicator between GPUs. NCCL moves the bytes, by grouped sends and receives and by its all-gather; the sums are
// ours, so that they are those of communicator.h and equal on all ranks.
//
// Sums travel directly, as over gloo: each rank sends to every owner its piece of the owner's part; the owner adds the
// pieces in rank order by a kernel on the same stream, and sends the sum to all.
//
// Every call waits for its end on the host, by asking NCCL and the stream again and again, so that it can give up: at
// the timeout, at Abort, and when a peer goes. NCCL itself notices a lost peer late or, between GPUs of one host, not
// at all; hence the `lifeline`, a communicator over the same ranks that notices at once. It also carries barriers and
// tagged messages. A failed call ends NCCL's communicator and the lifeline, so the peers' calls fail too.
//
// Memory that NCCL does not reach (the heap) is copied into memory that it does; gradients and buffers of a device are
// sent from where they are. Data that the device writes is sent after what After has named, without a wait of the host.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "worker/comm/communicator.h"
#include "worker/comm/exchange_memory.h"
#include "worker/comm/nccl/nccl_link.h"

namespace trainyard::comm {

class NcclCommunicator final : public Communicator {
 public:
  // Both over the same ranks. `timeout` bounds one call; the lifeline has its own, which should be the same.
  NcclCommunicator(std::unique_ptr<NcclLink> link, std::unique_ptr<Communicator> lifeline, absl::Duration timeout);
  ~NcclCommunicator() override;

  int rank() const override { return link_->rank(); }
  int size() const override { return link_->size(); }
  absl::Status AllReduceSum(const kernels::TensorView& data, float scale) override;
  absl::Status ReduceScatterSum(const kernels::TensorView& data, float scale) override;
  absl::Status AllGatherParts(const kernels::TensorView& data) override;
  absl::Status AllGatherBytes(const void* in, const std::vector<int64_t>& bytes, void* out) override;
  absl::Status AllToAllBytes(const Blocks& blocks) override;
  absl::Status Broadcast(void* data, int64_t bytes, int root) override;
  absl::Status Send(const void* data, int64_t bytes, int to, uint32_t tag) override;
  absl::Status Recv(void* data, int64_t bytes, int from, uint32_t tag) override;
  absl::Status Barrier() override;
  absl::Status After(kernels::Stream& stream) override;
  int64_t ReserveSum(int64_t data_bytes) override;
  void Abort() override;
  absl::Status health() const override;
  Traffic traffic() const override { return traffic_; }

 private:
  // Waits until what was started is at least `goal`. Fails the communicator if that does not come.
  absl::Status WaitUntil(NcclProgress goal, const char* what);
  absl::Status Run(const char* what);  // starts the listed transfers and waits for their end
  absl::Status StartListed(const char* what);
  absl::Status Sum(const char* what, const kernels::TensorView& data, float scale, bool gather);
  absl::Status OverLifeline(const char* what, const absl::Status& status);
  absl::Status Check();  // before a call
  absl::Status Fail(const char* what, const absl::Status& error);

  // The first `bytes` at `data` where NCCL reaches them, their contents too if `reads`.
  absl::StatusOr<char*> Reachable(const void* data, int64_t bytes, bool reads, ExchangeMemory* staging);
  void AddSend(int peer, char* data, int64_t bytes);
  void AddReceive(int peer, char* data, int64_t bytes);

  const std::unique_ptr<NcclLink> link_;
  const std::unique_ptr<Communicator> lifeline_;
  const absl::Duration timeout_;
  absl::Duration deadline_;  // of the call, monotonic
  ExchangeMemory pieces_;    // of the own part, a row a peer
  ExchangeMemory staging_in_, staging_out_;
  std::vector<NcclTransfer> sends_, receives_;
  std::vector<int64_t> part_bytes_;
  Traffic traffic_;
  std::atomic<bool> aborted_{false};

  mutable Mutex mutex_;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace trainyard::comm
