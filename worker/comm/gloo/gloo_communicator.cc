#include "worker/comm/gloo/gloo_communicator.h"

#include <gloo/transport/context.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "worker/comm/partition.h"
#include "worker/comm/reduce.h"

namespace trainyard::comm {
namespace {

using kernels::TensorView;

// A chunk is summed while the next one arrives: small enough to overlap and to stay in cache, large enough that a
// message costs little.
constexpr int64_t kChunkBytes = 512 << 10;

constexpr uint64_t kPointToPointSlots = uint64_t{1} << 62;
constexpr uint64_t kFarewellSlot = uint64_t{1} << 61;

// Longer than any attempt; gloo has no wait without end.
constexpr std::chrono::hours kForEver(24 * 365);
constexpr std::chrono::seconds kFarewellTimeout(1);

// Calls body(byte offset, bytes) for the chunks of [begin, begin + bytes).
template <typename Body>
void ForEachChunk(int64_t begin, int64_t bytes, const Body& body) {
  for (int64_t done = 0; done < bytes; done += kChunkBytes) body(begin + done, std::min(kChunkBytes, bytes - done));
}

int64_t ChunkCount(int64_t bytes) {
  return (bytes + kChunkBytes - 1) / kChunkBytes;
}

// Carries a Status out of nested calls to Run, through code that also sees gloo's exceptions.
struct CallFailed : std::exception {
  explicit CallFailed(absl::Status s) : status(std::move(s)) {}
  absl::Status status;
};

}  // namespace

// The state of one call.
struct GlooCommunicator::Call {
  const char* what;
  absl::Duration deadline;
  // Rounded up: a wait that ran into its end has passed the deadline.
  std::chrono::milliseconds Left() const {
    const int64_t left = absl::ToInt64Milliseconds(deadline - RealClock()->Monotonic());
    return std::chrono::milliseconds(std::max<int64_t>(left, 0) + 1);
  }
  bool expired() const { return RealClock()->Monotonic() >= deadline; }
};

// Memory registered with gloo for one call, and known to Abort while it is. Counts what it has posted, so that WaitAll
// knows what is due. Messages of no bytes are not sent.
class GlooCommunicator::Buffer {
 public:
  Buffer(GlooCommunicator* owner, const Call& call, const void* data, int64_t bytes)
      : owner_(owner),
        call_(call),
        buffer_(owner->context_->createUnboundBuffer(const_cast<void*>(data), static_cast<size_t>(bytes))) {
    MutexLock lock(&owner_->mutex_);
    if (!owner_->error_.ok()) throw CallFailed(owner_->error_);
    owner_->waiting_.push_back(buffer_.get());
  }
  ~Buffer() {
    MutexLock lock(&owner_->mutex_);
    auto& waiting = owner_->waiting_;
    waiting.erase(std::remove(waiting.begin(), waiting.end(), buffer_.get()), waiting.end());
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void Send(int to, uint64_t slot, int64_t offset, int64_t bytes) {
    if (bytes == 0) return;
    buffer_->send(to, slot, static_cast<size_t>(offset), static_cast<size_t>(bytes));
    ++sends_;
    owner_->traffic_.bytes_sent += bytes;
  }
  void Recv(int from, uint64_t slot, int64_t offset, int64_t bytes) {
    if (bytes == 0) return;
    buffer_->recv(from, slot, static_cast<size_t>(offset), static_cast<size_t>(bytes));
    ++receives_;
    owner_->traffic_.bytes_received += bytes;
  }
  void WaitRecv() {
    --receives_;
    if (!buffer_->waitRecv(nullptr, call_.Left())) Aborted();
  }
  void WaitAll() {
    while (receives_ > 0) WaitRecv();
    for (; sends_ > 0; --sends_) {
      if (!buffer_->waitSend(nullptr, call_.Left())) Aborted();
    }
  }

 private:
  [[noreturn]] void Aborted() { throw CallFailed(absl::AbortedError("the communicator was aborted")); }

  GlooCommunicator* const owner_;
  const Call& call_;
  const std::unique_ptr<gloo::transport::UnboundBuffer> buffer_;
  int64_t sends_ = 0, receives_ = 0;
};

template <typename Body>
absl::Status GlooCommunicator::Run(const char* what, const Body& body) {
  {
    MutexLock lock(&mutex_);
    if (!error_.ok()) return error_;
  }
  const Call call{what, RealClock()->Monotonic() + timeout_};
  absl::Status failure;
  try {
    body(call);
    return absl::OkStatus();
  } catch (const CallFailed& failed) {
    failure = failed.status;
  } catch (const std::exception& exception) {
    const std::string text = absl::StrCat(what, " on rank ", rank(), " of ", size(), ": ", exception.what());
    failure = call.expired()
                  ? absl::DeadlineExceededError(absl::StrCat(text, " (timeout ", absl::FormatDuration(timeout_), ")"))
                  : absl::UnavailableError(text);
  }
  Fail(failure);
  MutexLock lock(&mutex_);
  return error_;  // the first one, if Abort came before
}

GlooCommunicator::GlooCommunicator(std::shared_ptr<gloo::transport::Context> context, absl::Duration timeout)
    : context_(std::move(context)),
      timeout_(timeout),
      piece_pointers_(static_cast<size_t>(context_->size)),
      farewell_(context_->createUnboundBuffer(farewell_bytes_, sizeof(farewell_bytes_))),
      watcher_([this] { WatchPeers(); }) {}

GlooCommunicator::~GlooCommunicator() {
  SayFarewell();
  Fail(absl::AbortedError("the communicator was destroyed"));
  watcher_.join();
}

void GlooCommunicator::WatchPeers() {
  try {
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank()) farewell_->recv(peer, kFarewellSlot, 0, 1);
    }
    for (int farewells = 1; farewells < size(); ++farewells) {
      int peer = -1;
      if (!farewell_->waitRecv(&peer, kForEver)) return;  // this side has failed or goes
      MutexLock lock(&mutex_);
      if (left_.ok()) {
        left_ = absl::UnavailableError(absl::StrCat("rank ", peer, " of ", size(), " has left the communicator"));
      }
    }
  } catch (const std::exception& exception) {
    // A call of ours has run into its timeout, for which gloo closes everything; that call says so itself.
    if (absl::StrContains(exception.what(), "Application timeout")) return;
    Fail(absl::UnavailableError(absl::StrCat("rank ", rank(), " of ", size(), " has lost a peer: ", exception.what())));
  }
}

void GlooCommunicator::SayFarewell() {
  {
    MutexLock lock(&mutex_);
    if (!error_.ok()) return;
  }
  try {
    const auto buffer = context_->createUnboundBuffer(farewell_bytes_, sizeof(farewell_bytes_));
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank()) buffer->send(peer, kFarewellSlot, 1, 1);
    }
    for (int peer = 1; peer < size(); ++peer) buffer->waitSend(nullptr, kFarewellTimeout);
  } catch (const std::exception&) {
    // Somebody has gone already.
  }
}

int GlooCommunicator::rank() const {
  return context_->rank;
}
int GlooCommunicator::size() const {
  return context_->size;
}

absl::Status GlooCommunicator::health() const {
  MutexLock lock(&mutex_);
  return error_.ok() ? left_ : error_;
}

// gloo wakes waiting buffers when a connection breaks, but not when we close it ourselves.
void GlooCommunicator::Fail(const absl::Status& error) {
  {
    MutexLock lock(&mutex_);
    if (!error_.ok()) return;
    error_ = error;
    for (gloo::transport::UnboundBuffer* buffer : waiting_) {
      buffer->abortWaitRecv();
      buffer->abortWaitSend();
    }
    farewell_->abortWaitRecv();
  }
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    try {
      context_->getPair(peer)->close();
    } catch (const std::exception&) {
      // The connection is of no more use either way.
    }
  }
}

void GlooCommunicator::Abort() {
  Fail(absl::AbortedError(absl::StrCat("the communicator was aborted on rank ", rank())));
}

absl::Status GlooCommunicator::AllReduceSum(const TensorView& data, float scale) {
  return Sum("all-reduce", data, scale, true);
}

absl::Status GlooCommunicator::ReduceScatterSum(const TensorView& data, float scale) {
  return Sum("reduce-scatter", data, scale, false);
}

absl::Status GlooCommunicator::Sum(const char* what, const TensorView& data, float scale, bool gather) {
  return Run(what, [&](const Call& call) {
    const int64_t element_bytes = static_cast<int64_t>(kernels::SizeOf(data.dtype()));
    const auto bytes_of = [&](int owner) {
      const Part part = PartOf(data.size(), size(), owner);
      return Part{part.begin * element_bytes, part.end * element_bytes};
    };
    const Part own = bytes_of(rank());
    const uint64_t scatter_slot = NextSlot(), gather_slot = NextSlot();
    ReserveSum(data.bytes());

    // Everything that will arrive is posted first: a message whose receiver is not yet known costs a round trip. A
    // chunk has one buffer for all peers, so that the loss of any of them wakes the wait for it.
    Buffer whole(this, call, data.data(), data.bytes());
    std::vector<std::unique_ptr<Buffer>> chunks;
    ForEachChunk(0, own.size(), [&](int64_t offset, int64_t bytes) {
      auto& chunk = chunks.emplace_back(
          std::make_unique<Buffer>(this, call, pieces_.data(), static_cast<int64_t>(pieces_.size())));
      int64_t piece = 0;
      for (int peer = 0; peer < size(); ++peer) {
        if (peer == rank()) continue;
        chunk->Recv(peer, scatter_slot, piece + offset, bytes);
        piece += own.size();
      }
    });
    const char* next_piece = pieces_.data();
    for (int peer = 0; peer < size(); ++peer) {
      const void*& pointer = piece_pointers_[static_cast<size_t>(peer)];
      if (peer == rank()) {
        pointer = static_cast<const char*>(data.data()) + own.begin;
        continue;
      }
      pointer = next_piece;
      next_piece += own.size();
      if (!gather) continue;
      const Part theirs = bytes_of(peer);
      ForEachChunk(theirs.begin, theirs.size(),
                   [&](int64_t offset, int64_t bytes) { whole.Recv(peer, gather_slot, offset, bytes); });
    }

    int64_t longest_chunks = 0;
    for (int peer = 0; peer < size(); ++peer) {
      longest_chunks = std::max(longest_chunks, ChunkCount(bytes_of(peer).size()));
    }
    for (int64_t chunk = 0; chunk < longest_chunks; ++chunk) {
      for (int step = 1; step < size(); ++step) {
        const int owner = (rank() + step) % size();
        const Part theirs = bytes_of(owner);
        const int64_t begin = std::min(theirs.size(), chunk * kChunkBytes);
        whole.Send(owner, scatter_slot, theirs.begin + begin, std::min(kChunkBytes, theirs.size() - begin));
      }
    }

    // Overwriting a chunk that arrives from its owner is safe: the owner has it only after it has received our piece.
    ForEachChunk(0, own.size(), [&](int64_t offset, int64_t bytes) {
      chunks[static_cast<size_t>(offset / kChunkBytes)]->WaitAll();
      char* out = static_cast<char*>(data.data()) + own.begin + offset;
      SumInRankOrder(piece_pointers_.data(), size(), bytes / element_bytes, data.dtype(), scale, out);
      for (const void*& pointer : piece_pointers_) pointer = static_cast<const char*>(pointer) + bytes;
      for (int step = 1; gather && step < size(); ++step) {
        whole.Send((rank() + step) % size(), gather_slot, own.begin + offset, bytes);
      }
    });
    whole.WaitAll();
  });
}

absl::Status GlooCommunicator::AllGatherParts(const TensorView& data) {
  const int64_t element_bytes = static_cast<int64_t>(kernels::SizeOf(data.dtype()));
  std::vector<int64_t> bytes;
  for (int owner = 0; owner < size(); ++owner) {
    bytes.push_back(PartOf(data.size(), size(), owner).size() * element_bytes);
  }
  const Part own = PartOf(data.size(), size(), rank());
  return AllGatherBytes(static_cast<const char*>(data.data()) + own.begin * element_bytes, bytes, data.data());
}

absl::Status GlooCommunicator::AllGatherBytes(const void* in, const std::vector<int64_t>& bytes, void* out) {
  TY_CHECK_EQ(bytes.size(), static_cast<size_t>(size()));
  return Run("all-gather", [&](const Call& call) {
    const uint64_t slot = NextSlot();
    int64_t total = 0;
    for (int64_t count : bytes) total += count;
    const int64_t own_bytes = bytes[static_cast<size_t>(rank())];
    Buffer receive(this, call, out, total);
    Buffer send(this, call, in, own_bytes);
    int64_t offset = 0;
    for (int from = 0; from < size(); ++from) {
      const int64_t count = bytes[static_cast<size_t>(from)];
      if (from != rank()) {
        receive.Recv(from, slot, offset, count);
      } else if (count > 0 && static_cast<char*>(out) + offset != in) {
        std::memcpy(static_cast<char*>(out) + offset, in, static_cast<size_t>(count));
      }
      offset += count;
    }
    for (int step = 1; step < size(); ++step) send.Send((rank() + step) % size(), slot, 0, own_bytes);
    receive.WaitAll();
    send.WaitAll();
  });
}

absl::Status GlooCommunicator::AllToAllBytes(const Blocks& blocks) {
  return Run("all-to-all", [&](const Call& call) {
    const uint64_t slot = NextSlot();
    int64_t in_bytes = 0, out_bytes = 0;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      const size_t p = static_cast<size_t>(peer);
      in_bytes = std::max(in_bytes, blocks.in_offsets[p] + blocks.send_bytes[p]);
      out_bytes = std::max(out_bytes, blocks.out_offsets[p] + blocks.recv_bytes[p]);
    }
    Buffer receive(this, call, blocks.out, out_bytes);
    Buffer send(this, call, blocks.in, in_bytes);
    for (int step = 1; step < size(); ++step) {
      const size_t from = static_cast<size_t>((rank() + size() - step) % size());
      receive.Recv(static_cast<int>(from), slot, blocks.out_offsets[from], blocks.recv_bytes[from]);
    }
    for (int step = 1; step < size(); ++step) {
      const size_t to = static_cast<size_t>((rank() + step) % size());
      send.Send(static_cast<int>(to), slot, blocks.in_offsets[to], blocks.send_bytes[to]);
    }
    receive.WaitAll();
    send.WaitAll();
  });
}

absl::Status GlooCommunicator::Broadcast(void* data, int64_t bytes, int root) {
  return Run("broadcast", [&](const Call& call) {
    const uint64_t slot = NextSlot();
    Buffer buffer(this, call, data, bytes);
    if (rank() == root) {
      for (int step = 1; step < size(); ++step) buffer.Send((rank() + step) % size(), slot, 0, bytes);
    } else {
      buffer.Recv(root, slot, 0, bytes);
    }
    buffer.WaitAll();
  });
}

absl::Status GlooCommunicator::Send(const void* data, int64_t bytes, int to, uint32_t tag) {
  TY_CHECK_NE(to, rank());
  return Run("send", [&](const Call& call) {
    Buffer buffer(this, call, data, bytes);
    buffer.Send(to, kPointToPointSlots + tag, 0, bytes);
    buffer.WaitAll();
  });
}

absl::Status GlooCommunicator::Recv(void* data, int64_t bytes, int from, uint32_t tag) {
  TY_CHECK_NE(from, rank());
  return Run("receive", [&](const Call& call) {
    Buffer buffer(this, call, data, bytes);
    buffer.Recv(from, kPointToPointSlots + tag, 0, bytes);
    buffer.WaitAll();
  });
}

// Everybody hears from everybody.
absl::Status GlooCommunicator::Barrier() {
  return Run("barrier", [&](const Call& call) {
    const uint64_t slot = NextSlot();
    char token[2] = {};
    Buffer buffer(this, call, token, sizeof(token));
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank()) buffer.Recv(peer, slot, 0, 1);
    }
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank()) buffer.Send(peer, slot, 1, 1);
    }
    buffer.WaitAll();
  });
}

int64_t GlooCommunicator::ReserveSum(int64_t data_bytes) {
  // One grain more than an even share: the first parts may be that much longer.
  const int64_t own_bytes = data_bytes / size() + 2 * kPartGrain * static_cast<int64_t>(sizeof(float));
  const size_t needed = static_cast<size_t>(own_bytes * (size() - 1));
  if (pieces_.size() < needed) pieces_.resize(needed);
  return static_cast<int64_t>(pieces_.size());
}

}  // namespace trainyard::comm
