// A communicator over gloo's TCP transport. Only its tagged messages are used: the collectives are ours, so that their
// sums are those of communicator.h and large ones are pipelined.
//
// Sums travel directly: each rank sends to every owner its piece of the owner's part, in chunks; the owner adds chunk
// by chunk while the next ones arrive and sends each on at once. With two ranks that is one exchange of halves each
// way.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "worker/comm/communicator.h"

namespace gloo::transport {
class Context;
class UnboundBuffer;
}  // namespace gloo::transport

namespace trainyard::comm {

class GlooCommunicator final : public Communicator {
 public:
  // All pairs of `context` are connected. `timeout` bounds one call.
  GlooCommunicator(std::shared_ptr<gloo::transport::Context> context, absl::Duration timeout);
  ~GlooCommunicator() override;

  void set_timeout(absl::Duration timeout) { timeout_ = timeout; }

  int rank() const override;
  int size() const override;
  absl::Status AllReduceSum(const kernels::TensorView& data, float scale) override;
  absl::Status ReduceScatterSum(const kernels::TensorView& data, float scale) override;
  absl::Status AllGatherParts(const kernels::TensorView& data) override;
  absl::Status AllGatherBytes(const void* in, const std::vector<int64_t>& bytes, void* out) override;
  absl::Status AllToAllBytes(const Blocks& blocks) override;
  absl::Status Broadcast(void* data, int64_t bytes, int root) override;
  absl::Status Send(const void* data, int64_t bytes, int to, uint32_t tag) override;
  absl::Status Recv(void* data, int64_t bytes, int from, uint32_t tag) override;
  absl::Status Barrier() override;
  int64_t ReserveSum(int64_t data_bytes) override;
  void Abort() override;
  absl::Status health() const override;
  Traffic traffic() const override { return traffic_; }

 private:
  class Buffer;
  struct Call;

  // Runs `body(Call&)`, turns what gloo throws into a Status, and closes the connections on a failure.
  template <typename Body>
  absl::Status Run(const char* what, const Body& body);
  void Fail(const absl::Status& error);
  void WatchPeers();
  void SayFarewell();
  absl::Status Sum(const char* what, const kernels::TensorView& data, float scale, bool gather);
  uint64_t NextSlot() { return sequence_++; }

  const std::shared_ptr<gloo::transport::Context> context_;
  absl::Duration timeout_;
  uint64_t sequence_ = 0;     // numbers the messages of collectives; equal on all ranks
  std::vector<char> pieces_;  // the others' pieces of the own part
  std::vector<const void*> piece_pointers_;
  Traffic traffic_;
  char farewell_bytes_[2] = {};  // one to receive into, one to send
  const std::unique_ptr<gloo::transport::UnboundBuffer> farewell_;

  mutable Mutex mutex_;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  absl::Status left_ ABSL_GUARDED_BY(mutex_);  // names the first peer that has said farewell
  std::vector<gloo::transport::UnboundBuffer*> waiting_ ABSL_GUARDED_BY(mutex_);  // what Abort has to wake

  std::thread watcher_;  // last: it uses all of the above
};

}  // namespace trainyard::comm
