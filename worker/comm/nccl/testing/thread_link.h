// An NcclLink between threads of a test, by copies: what NcclCommunicator makes of transfers is then tested without a
// GPU. Like NCCL it matches the messages of two ranks by their order alone, reports a start before it reports that
// something runs, and never notices that a peer has gone.
#pragma once

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "worker/comm/nccl/nccl_link.h"

namespace trainyard::comm {

class ThreadLink final : public NcclLink {
 public:
  // Messages under way, by sender and receiver.
  struct Hub {
    Mutex mutex;
    std::map<std::pair<int, int>, std::deque<std::vector<char>>> mail ABSL_GUARDED_BY(mutex);
  };

  // With `reaches_all` false everything goes through the communicator's own memory.
  ThreadLink(std::shared_ptr<Hub> hub, int rank, int size, bool reaches_all)
      : hub_(std::move(hub)), rank_(rank), size_(size), reaches_all_(reaches_all) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  kernels::Stream& stream() override { return stream_; }
  bool Reaches(const void*) const override { return reaches_all_; }

  absl::Status Start(const std::vector<NcclTransfer>& sends, const std::vector<NcclTransfer>& receives) override {
    if (is_aborted_) return absl::FailedPreconditionError("aborted");
    // Whatever is due first must have come.
    if (!pending_.empty()) return absl::InternalError("a start before the last one's end");
    sends_ = sends;
    pending_ = receives;
    is_sent_ = false;
    return absl::OkStatus();
  }

  absl::Status StartAllGather(const void* in, void* out, int64_t bytes) override {
    char* const base = static_cast<char*>(out);
    if (base + rank_ * bytes != in) std::memcpy(base + rank_ * bytes, in, static_cast<size_t>(bytes));
    std::vector<NcclTransfer> sends, receives;
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) continue;
      sends.push_back({peer, base + rank_ * bytes, bytes});
      receives.push_back({peer, base + peer * bytes, bytes});
    }
    return Start(sends, receives);
  }

  absl::Status StartFarewell() override { return Start({}, {}); }

  absl::StatusOr<NcclProgress> Poll() override {
    if (is_aborted_) return absl::FailedPreconditionError("aborted");
    MutexLock lock(&hub_->mutex);
    if (!is_sent_) {
      for (const NcclTransfer& send : sends_) {
        const char* const data = static_cast<const char*>(send.data);
        hub_->mail[{rank_, send.peer}].emplace_back(data, data + send.bytes);
      }
      is_sent_ = true;
      return NcclProgress::kStarting;
    }
    while (!pending_.empty()) {
      const NcclTransfer& next = pending_.front();
      auto& box = hub_->mail[{next.peer, rank_}];
      // kRunning promises that what the caller enqueues comes after it; here that means: not before it has ended.
      if (box.empty()) return NcclProgress::kStarting;
      if (static_cast<int64_t>(box.front().size()) != next.bytes) return absl::UnavailableError("lengths differ");
      std::memcpy(next.data, box.front().data(), box.front().size());
      box.pop_front();
      pending_.erase(pending_.begin());
    }
    return NcclProgress::kDone;
  }

  void Abort() override { is_aborted_ = true; }

 private:
  const std::shared_ptr<Hub> hub_;
  const int rank_, size_;
  const bool reaches_all_;
  kernels::Stream stream_{1};
  std::vector<NcclTransfer> sends_, pending_;
  bool is_sent_ = true;
  bool is_aborted_ = false;
};

}  // namespace trainyard::comm
