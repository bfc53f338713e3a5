#include "worker/comm/nccl/nccl_communicator.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "kernels/codec/piece_math.h"
#include "worker/comm/partition.h"

namespace trainyard::comm {
namespace {

using kernels::DType;
using kernels::TensorView;

// A peer that has left in good order, or died, may have done its share of the call before: what is under way gets this
// long to end.
constexpr absl::Duration kGrace = absl::Milliseconds(300);
// What a rank that leaves waits for the others to leave too.
constexpr absl::Duration kFarewell = absl::Seconds(2);

// Small exchanges end within tens of microseconds; after that the processor is better left to others.
constexpr absl::Duration kSpin = absl::Microseconds(100);
constexpr std::chrono::microseconds kPause(20);

size_t Index(int rank) {
  return static_cast<size_t>(rank);
}

}  // namespace

NcclCommunicator::NcclCommunicator(std::unique_ptr<NcclLink> link, std::unique_ptr<Communicator> lifeline,
                                   absl::Duration timeout)
    : link_(std::move(link)),
      lifeline_(std::move(lifeline)),
      timeout_(timeout),
      pieces_(MemoryKindOf(link_->stream())),
      staging_in_(MemoryKindOf(link_->stream())),
      staging_out_(MemoryKindOf(link_->stream())),
      part_bytes_(Index(link_->size())) {
  TY_CHECK_EQ(link_->rank(), lifeline_->rank());
  TY_CHECK_EQ(link_->size(), lifeline_->size());
}

NcclCommunicator::~NcclCommunicator() {
  // Sends may still be on their way from buffers of NCCL's own.
  if (health().ok() && link_->StartFarewell().ok()) {
    const absl::Duration deadline = RealClock()->Monotonic() + kFarewell;
    while (lifeline_->health().ok() && RealClock()->Monotonic() < deadline) {
      const absl::StatusOr<NcclProgress> progress = link_->Poll();
      if (!progress.ok() || *progress == NcclProgress::kDone) break;
      std::this_thread::sleep_for(kPause);
    }
  }
  link_->Abort();
}

absl::Status NcclCommunicator::Check() {
  deadline_ = RealClock()->Monotonic() + timeout_;
  sends_.clear();
  receives_.clear();
  {
    MutexLock lock(&mutex_);
    if (!error_.ok()) return error_;
  }
  if (aborted_) return Fail("a call", absl::AbortedError("the communicator was aborted"));
  return absl::OkStatus();
}

absl::Status NcclCommunicator::Fail(const char* what, const absl::Status& error) {
  link_->Abort();
  lifeline_->Abort();
  MutexLock lock(&mutex_);
  if (error_.ok()) {
    error_ = absl::Status(error.code(),
                          absl::StrCat(what, " on rank ", rank(), " of ", size(), ": ", std::string(error.message())));
  }
  return error_;
}

absl::Status NcclCommunicator::health() const {
  {
    MutexLock lock(&mutex_);
    if (!error_.ok()) return error_;
  }
  if (aborted_) return absl::AbortedError(absl::StrCat("the communicator was aborted on rank ", rank()));
  return lifeline_->health();
}

// The thread that makes the calls ends NCCL's communicator; here only the peers are told.
void NcclCommunicator::Abort() {
  aborted_ = true;
  lifeline_->Abort();
}

absl::Status NcclCommunicator::WaitUntil(NcclProgress goal, const char* what) {
  const absl::Duration start = RealClock()->Monotonic();
  absl::Duration given_up = absl::InfiniteDuration();
  absl::Status lost;
  while (true) {
    const absl::StatusOr<NcclProgress> progress = link_->Poll();
    if (aborted_) return Fail(what, absl::AbortedError("the communicator was aborted"));
    if (!progress.ok()) return Fail(what, progress.status());
    if (*progress >= goal) return absl::OkStatus();
    const absl::Duration now = RealClock()->Monotonic();
    if (lost.ok()) {
      lost = lifeline_->health();
      if (!lost.ok()) given_up = now + kGrace;
    }
    if (now >= given_up) return Fail(what, absl::UnavailableError(std::string(lost.message())));
    if (now >= deadline_) {
      return Fail(what, absl::DeadlineExceededError(absl::StrCat("not done within ", absl::FormatDuration(timeout_))));
    }
    if (now - start < kSpin) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kPause);
    }
  }
}

absl::Status NcclCommunicator::StartListed(const char* what) {
  if (sends_.empty() && receives_.empty()) return absl::OkStatus();
  for (const NcclTransfer& send : sends_) traffic_.bytes_sent += send.bytes;
  for (const NcclTransfer& receive : receives_) traffic_.bytes_received += receive.bytes;
  const absl::Status status = link_->Start(sends_, receives_);
  return status.ok() ? status : Fail(what, status);
}

absl::Status NcclCommunicator::Run(const char* what) {
  TY_RETURN_IF_ERROR(StartListed(what));
  return WaitUntil(NcclProgress::kDone, what);
}

void NcclCommunicator::AddSend(int peer, char* data, int64_t bytes) {
  if (bytes > 0) sends_.push_back({peer, data, bytes});
}
void NcclCommunicator::AddReceive(int peer, char* data, int64_t bytes) {
  if (bytes > 0) receives_.push_back({peer, data, bytes});
}

absl::StatusOr<char*> NcclCommunicator::Reachable(const void* data, int64_t bytes, bool reads,
                                                  ExchangeMemory* staging) {
  if (bytes == 0 || link_->Reaches(data)) return static_cast<char*>(const_cast<void*>(data));
  TY_RETURN_IF_ERROR(staging->Grow(bytes));
  if (reads) std::memcpy(staging->data(), data, static_cast<size_t>(bytes));
  return staging->data();
}

absl::Status NcclCommunicator::AllReduceSum(const TensorView& data, float scale) {
  return Sum("all-reduce", data, scale, /*gather=*/true);
}

absl::Status NcclCommunicator::ReduceScatterSum(const TensorView& data, float scale) {
  return Sum("reduce-scatter", data, scale, /*gather=*/false);
}

absl::Status NcclCommunicator::Sum(const char* what, const TensorView& data, float scale, bool gather) {
  TY_RETURN_IF_ERROR(Check());
  const int64_t element_bytes = static_cast<int64_t>(kernels::SizeOf(data.dtype()));
  TY_ASSIGN_OR_RETURN(char* const base, Reachable(data.data(), data.bytes(), /*reads=*/true, &staging_in_));
  const auto part = [&](int owner) { return PartOf(data.size(), size(), owner); };
  const Part own = part(rank());
  const int64_t own_bytes = own.size() * element_bytes;
  TY_RETURN_IF_ERROR(pieces_.Grow(std::max<int64_t>(1, own_bytes * (size() - 1))));
  for (int step = 1; step < size(); ++step) {
    const int peer = (rank() + step) % size();
    AddSend(peer, base + part(peer).begin * element_bytes, part(peer).size() * element_bytes);
    AddReceive(peer, pieces_.data() + (peer < rank() ? peer : peer - 1) * own_bytes, own_bytes);
  }
  TY_RETURN_IF_ERROR(StartListed(what));
  TY_RETURN_IF_ERROR(WaitUntil(NcclProgress::kRunning, what));
  const TensorView sum(base + own.begin * element_bytes, data.dtype(), {own.size()});
  if (own.size() > 0) {
    SumPieces({.pieces = TensorView(pieces_.data(), data.dtype(), {size() - 1, own.size()}),
               .own_piece = sum,
               .own = rank(),
               .scale = scale,
               .out = sum},
              link_->stream());
  }
  sends_.clear();
  receives_.clear();
  if (gather) {
    for (int step = 1; step < size(); ++step) {
      const int to = (rank() + step) % size(), from = (rank() + size() - step) % size();
      AddSend(to, base + own.begin * element_bytes, own_bytes);
      AddReceive(from, base + part(from).begin * element_bytes, part(from).size() * element_bytes);
    }
    TY_RETURN_IF_ERROR(StartListed(what));
  }
  TY_RETURN_IF_ERROR(WaitUntil(NcclProgress::kDone, what));
  // Ends after the pieces have come, so this is short; nothing to do where a transfer came after it.
  if (const absl::Status status = link_->stream().Synchronize(); !status.ok()) return Fail(what, status);
  if (base != data.data() && data.bytes() > 0) {
    char* const out = static_cast<char*>(data.data());
    if (gather) {
      std::memcpy(out, base, static_cast<size_t>(data.bytes()));
    } else if (own_bytes > 0) {
      std::memcpy(out + own.begin * element_bytes, sum.data(), static_cast<size_t>(own_bytes));
    }
  }
  return absl::OkStatus();
}

absl::Status NcclCommunicator::AllGatherParts(const TensorView& data) {
  const int64_t element_bytes = static_cast<int64_t>(kernels::SizeOf(data.dtype()));
  for (int owner = 0; owner < size(); ++owner) {
    part_bytes_[Index(owner)] = PartOf(data.size(), size(), owner).size() * element_bytes;
  }
  const Part own = PartOf(data.size(), size(), rank());
  return AllGatherBytes(static_cast<const char*>(data.data()) + own.begin * element_bytes, part_bytes_, data.data());
}

absl::Status NcclCommunicator::AllGatherBytes(const void* in, const std::vector<int64_t>& bytes, void* out) {
  constexpr char kWhat[] = "all-gather";
  TY_CHECK_EQ(bytes.size(), Index(size()));
  TY_RETURN_IF_ERROR(Check());
  const int64_t total = std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
  const int64_t before = std::accumulate(bytes.begin(), bytes.begin() + rank(), int64_t{0});
  const int64_t own = bytes[Index(rank())];
  TY_ASSIGN_OR_RETURN(char* const from_base, Reachable(in, own, /*reads=*/true, &staging_in_));
  TY_ASSIGN_OR_RETURN(char* const base, Reachable(out, total, /*reads=*/false, &staging_out_));
  if (own > 0 && from_base != base + before) {
    CopyBytes({TensorView(from_base, DType::kU8, {own}), TensorView(base + before, DType::kU8, {own})},
              link_->stream());
  }
  const bool is_even = std::all_of(bytes.begin(), bytes.end(), [&](int64_t count) { return count == own; });
  if (is_even && own > 0 && size() > 1) {
    traffic_.bytes_sent += own * (size() - 1);
    traffic_.bytes_received += own * (size() - 1);
    if (const absl::Status status = link_->StartAllGather(base + before, base, own); !status.ok()) {
      return Fail(kWhat, status);
    }
    TY_RETURN_IF_ERROR(WaitUntil(NcclProgress::kDone, kWhat));
  } else {
    int64_t offset = 0;
    for (int peer = 0; peer < size(); ++peer) {
      const int64_t count = bytes[Index(peer)];
      if (peer != rank()) {
        AddSend(peer, base + before, own);
        AddReceive(peer, base + offset, count);
      }
      offset += count;
    }
    TY_RETURN_IF_ERROR(Run(kWhat));
    if (const absl::Status status = link_->stream().Synchronize(); !status.ok()) return Fail(kWhat, status);
  }
  if (base != out && total > 0) std::memcpy(out, base, static_cast<size_t>(total));
  return absl::OkStatus();
}

absl::Status NcclCommunicator::AllToAllBytes(const Blocks& blocks) {
  TY_RETURN_IF_ERROR(Check());
  int64_t in_bytes = 0, out_bytes = 0;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const size_t p = Index(peer);
    in_bytes = std::max(in_bytes, blocks.in_offsets[p] + blocks.send_bytes[p]);
    out_bytes = std::max(out_bytes, blocks.out_offsets[p] + blocks.recv_bytes[p]);
  }
  TY_ASSIGN_OR_RETURN(char* const in, Reachable(blocks.in, in_bytes, /*reads=*/true, &staging_in_));
  TY_ASSIGN_OR_RETURN(char* const out, Reachable(blocks.out, out_bytes, /*reads=*/false, &staging_out_));
  for (int step = 1; step < size(); ++step) {
    const int to = (rank() + step) % size(), from = (rank() + size() - step) % size();
    AddSend(to, in + blocks.in_offsets[Index(to)], blocks.send_bytes[Index(to)]);
    AddReceive(from, out + blocks.out_offsets[Index(from)], blocks.recv_bytes[Index(from)]);
  }
  TY_RETURN_IF_ERROR(Run("all-to-all"));
  if (out == blocks.out) return absl::OkStatus();
  for (const NcclTransfer& receive : receives_) {
    const int64_t offset = static_cast<char*>(receive.data) - out;
    std::memcpy(blocks.out + offset, receive.data, static_cast<size_t>(receive.bytes));
  }
  return absl::OkStatus();
}

absl::Status NcclCommunicator::Broadcast(void* data, int64_t bytes, int root) {
  TY_RETURN_IF_ERROR(Check());
  const bool is_root = rank() == root;
  TY_ASSIGN_OR_RETURN(char* const base, Reachable(data, bytes, /*reads=*/is_root, &staging_in_));
  if (is_root) {
    for (int step = 1; step < size(); ++step) AddSend((rank() + step) % size(), base, bytes);
  } else {
    AddReceive(root, base, bytes);
  }
  TY_RETURN_IF_ERROR(Run("broadcast"));
  if (!is_root && base != data && bytes > 0) std::memcpy(data, base, static_cast<size_t>(bytes));
  return absl::OkStatus();
}

absl::Status NcclCommunicator::OverLifeline(const char* what, const absl::Status& status) {
  if (status.ok()) return status;
  if (aborted_) return Fail(what, absl::AbortedError("the communicator was aborted"));
  return Fail(what, status);
}

absl::Status NcclCommunicator::Send(const void* data, int64_t bytes, int to, uint32_t tag) {
  TY_RETURN_IF_ERROR(Check());
  TY_RETURN_IF_ERROR(link_->stream().Synchronize());  // the lifeline reads on the host
  TY_RETURN_IF_ERROR(OverLifeline("send", lifeline_->Send(data, bytes, to, tag)));
  traffic_.bytes_sent += bytes;
  return absl::OkStatus();
}

absl::Status NcclCommunicator::Recv(void* data, int64_t bytes, int from, uint32_t tag) {
  TY_RETURN_IF_ERROR(Check());
  TY_RETURN_IF_ERROR(OverLifeline("receive", lifeline_->Recv(data, bytes, from, tag)));
  traffic_.bytes_received += bytes;
  return absl::OkStatus();
}

absl::Status NcclCommunicator::Barrier() {
  TY_RETURN_IF_ERROR(Check());
  return OverLifeline("barrier", lifeline_->Barrier());
}

absl::Status NcclCommunicator::After(kernels::Stream& stream) {
  if (stream.device() == link_->stream().device()) {
    link_->stream().WaitFor(stream);
    return absl::OkStatus();
  }
  return stream.Synchronize();
}

int64_t NcclCommunicator::ReserveSum(int64_t data_bytes) {
  // One grain more than an even share: the first parts may be that much longer.
  const int64_t own_bytes = data_bytes / size() + 2 * kPartGrain * static_cast<int64_t>(sizeof(float));
  pieces_.Grow(std::max<int64_t>(1, own_bytes * (size() - 1))).IgnoreError();  // the call that needs it will say so
  return pieces_.bytes();
}

}  // namespace trainyard::comm
