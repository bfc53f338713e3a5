#include "worker/comm/local/local_communicator.h"

#include <cstring>
#include <deque>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "worker/comm/partition.h"
#include "worker/comm/reduce.h"

namespace trainyard::comm {
namespace {

using kernels::TensorView;

// What a rank lays open to the others for one collective.
struct Post {
  const char* what = "";
  const char* in = nullptr;
  TensorView data = TensorView();
  const Communicator::Blocks* blocks = nullptr;
  int64_t bytes = 0;
  int root = 0;
};

// Shared by the ranks. A collective is a row of phases: all meet, then each works on what the others have posted, then
// all meet again.
class LocalGroup {
 public:
  LocalGroup(int size, absl::Duration timeout)
      : size_(size), timeout_(timeout), posts_(Index(size)), waiting_(Index(size)), reading_(Index(size)) {}

  int size() const { return size_; }

  // Posts and waits for the others. With `reads`, the caller then looks at the others' posts and memory until it meets
  // again; every call begins with such a meeting, at which the ranks find out whether their calls fit together. An
  // error is returned only when no rank looks at the caller's memory any more.
  absl::Status Meet(int rank, bool reads, const Post* post = nullptr) {
    MutexLock lock(&mutex_);
    StopReading(rank);
    if (!error_.ok()) return Leave(rank);
    if (post != nullptr) posts_[Index(rank)] = *post;
    const uint64_t generation = generation_;
    waiting_[Index(rank)] = true;
    if (++waiting_count_ == size_) {
      ++generation_;
      waiting_count_ = 0;
      waiting_.assign(Index(size_), false);
      if (reads) {
        reading_.assign(Index(size_), true);
        reading_count_ = size_;
      }
      changed_.NotifyAll();
      return absl::OkStatus();
    }
    WaitUntil([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return generation_ != generation; },
              [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return absl::StrCat(posts_[Index(rank)].what, ": ", Missing()); });
    return generation_ != generation ? absl::OkStatus() : Leave(rank);
  }

  // Valid between two meetings. Posts do not change in between, hence no lock.
  const Post& post(int rank) const ABSL_NO_THREAD_SAFETY_ANALYSIS { return posts_[Index(rank)]; }

  // For `rank` itself it is Aborted; for the others the rank has gone.
  void Abort(int rank) {
    MutexLock lock(&mutex_);
    if (error_.ok()) aborted_rank_ = rank;
    FailLocked(absl::UnavailableError(absl::StrCat("rank ", rank, " has aborted the communicator")));
  }

  absl::Status health(int rank) const {
    MutexLock lock(&mutex_);
    return ErrorFor(rank);
  }

  // The first error stays.
  void Fail(const absl::Status& error) {
    MutexLock lock(&mutex_);
    FailLocked(error);
  }

  absl::Status FailAndLeave(int rank, const absl::Status& error) {
    MutexLock lock(&mutex_);
    StopReading(rank);
    FailLocked(error);
    return Leave(rank);
  }

  // Copies happen under the lock: messages are small, and the buffers' owners wait.
  absl::Status Send(const void* data, int64_t bytes, int from, int to, uint32_t tag) {
    MutexLock lock(&mutex_);
    if (!error_.ok()) return Leave(from);
    Message message{data, bytes, false};
    mail_[{from, to, tag}].push_back(&message);
    changed_.NotifyAll();
    WaitUntil([&] { return message.taken; }, [&] { return absl::StrCat("send: rank ", to, " does not receive"); });
    return message.taken ? absl::OkStatus() : Leave(from);
  }

  absl::Status Recv(void* data, int64_t bytes, int from, int to, uint32_t tag) {
    MutexLock lock(&mutex_);
    if (!error_.ok()) return Leave(to);
    std::deque<Message*>& box = mail_[{from, to, tag}];
    WaitUntil([&] { return !box.empty(); }, [&] { return absl::StrCat("receive: rank ", from, " does not send"); });
    if (!error_.ok()) return Leave(to);
    Message* message = box.front();
    if (message->bytes != bytes) {
      FailLocked(absl::InvalidArgumentError(
          absl::StrCat("receive: rank ", from, " sends ", message->bytes, " bytes, rank ", to, " expects ", bytes)));
      return Leave(to);
    }
    if (bytes > 0) std::memcpy(data, message->data, static_cast<size_t>(bytes));
    box.pop_front();
    message->taken = true;
    changed_.NotifyAll();
    return absl::OkStatus();
  }

 private:
  struct Message {
    const void* data;
    int64_t bytes;
    bool taken;
  };

  static size_t Index(int rank) { return static_cast<size_t>(rank); }

  void StopReading(int rank) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!reading_[Index(rank)]) return;
    reading_[Index(rank)] = false;
    if (--reading_count_ == 0) changed_.NotifyAll();
  }

  void FailLocked(const absl::Status& error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (error_.ok()) error_ = error;
    changed_.NotifyAll();
  }

  // Waits for `done`, an error, or the timeout, which is an error for all.
  template <typename Done, typename Text>
  void WaitUntil(const Done& done, const Text& text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Duration deadline = RealClock()->Monotonic() + timeout_;
    while (!done() && error_.ok()) {
      const absl::Duration left = deadline - RealClock()->Monotonic();
      if (left <= absl::ZeroDuration()) {
        FailLocked(absl::DeadlineExceededError(absl::StrCat(text(), " within ", absl::FormatDuration(timeout_))));
        return;
      }
      changed_.WaitFor(&mutex_, left);
    }
  }

  // Reading is plain copying between two meetings, so this wait is short.
  absl::Status Leave(int rank) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (reading_count_ > 0) changed_.Wait(&mutex_);
    return ErrorFor(rank);
  }

  absl::Status ErrorFor(int rank) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (rank == aborted_rank_) return absl::AbortedError(absl::StrCat("the communicator was aborted on rank ", rank));
    return error_;
  }

  std::string Missing() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::vector<int> missing;
    for (int rank = 0; rank < size_; ++rank) {
      if (!waiting_[Index(rank)]) missing.push_back(rank);
    }
    return absl::StrCat("rank ", absl::StrJoin(missing, ", "), " did not take part");
  }

  const int size_;
  const absl::Duration timeout_;

  mutable Mutex mutex_;
  CondVar changed_;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  int aborted_rank_ ABSL_GUARDED_BY(mutex_) = -1;
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Post> posts_;  // written under mutex_, read between meetings
  std::vector<bool> waiting_ ABSL_GUARDED_BY(mutex_);
  int waiting_count_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<bool> reading_ ABSL_GUARDED_BY(mutex_);
  int reading_count_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::tuple<int, int, uint32_t>, std::deque<Message*>> mail_ ABSL_GUARDED_BY(mutex_);
};

class LocalCommunicator final : public Communicator {
 public:
  // The group lives as long as the last of its ranks, whichever that is.
  LocalCommunicator(std::shared_ptr<LocalGroup> group, int rank) : group_(std::move(group)), rank_(rank) {}
  ~LocalCommunicator() override {
    group_->Fail(absl::UnavailableError(absl::StrCat("rank ", rank_, " has left the communicator")));
  }

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  absl::Status AllReduceSum(const TensorView& data, float scale) override {
    TY_RETURN_IF_ERROR(SumOwnPart("all-reduce", data, scale));
    TY_RETURN_IF_ERROR(group_->Meet(rank_, true));
    CopyForeignParts(data);
    return group_->Meet(rank_, false);
  }

  absl::Status ReduceScatterSum(const TensorView& data, float scale) override {
    TY_RETURN_IF_ERROR(SumOwnPart("reduce-scatter", data, scale));
    return group_->Meet(rank_, false);
  }

  absl::Status AllGatherParts(const TensorView& data) override {
    TY_RETURN_IF_ERROR(MeetWith({.what = "all-gather of parts", .data = data, .bytes = data.bytes()}));
    CopyForeignParts(data);
    return group_->Meet(rank_, false);
  }

  absl::Status AllGatherBytes(const void* in, const std::vector<int64_t>& bytes, void* out) override {
    TY_CHECK_EQ(bytes.size(), static_cast<size_t>(size()));
    const int64_t total = std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
    TY_RETURN_IF_ERROR(MeetWith({.what = "all-gather", .in = static_cast<const char*>(in), .bytes = total}));
    char* place = static_cast<char*>(out);
    for (int from = 0; from < size(); ++from) {
      const int64_t count = bytes[static_cast<size_t>(from)];
      if (from != rank_ || place != in) Copy(place, group_->post(from).in, count);
      if (from == rank_) {
        traffic_.bytes_sent += count * (size() - 1);
      } else {
        traffic_.bytes_received += count;
      }
      place += count;
    }
    return group_->Meet(rank_, false);
  }

  absl::Status AllToAllBytes(const Blocks& blocks) override {
    TY_RETURN_IF_ERROR(MeetWith({.what = "all-to-all", .blocks = &blocks}));
    for (int from = 0; from < size(); ++from) {
      if (from == rank_) continue;
      const size_t f = static_cast<size_t>(from), me = static_cast<size_t>(rank_);
      const Blocks& theirs = *group_->post(from).blocks;
      if (theirs.send_bytes[me] != blocks.recv_bytes[f]) {
        return group_->FailAndLeave(
            rank_, absl::InvalidArgumentError(absl::StrCat("all-to-all: rank ", from, " sends ", theirs.send_bytes[me],
                                                           " bytes, rank ", rank_, " expects ", blocks.recv_bytes[f])));
      }
      Copy(blocks.out + blocks.out_offsets[f], theirs.in + theirs.in_offsets[me], blocks.recv_bytes[f]);
      traffic_.bytes_received += blocks.recv_bytes[f];
      traffic_.bytes_sent += blocks.send_bytes[f];
    }
    return group_->Meet(rank_, false);
  }

  absl::Status Broadcast(void* data, int64_t bytes, int root) override {
    TY_RETURN_IF_ERROR(
        MeetWith({.what = "broadcast", .in = static_cast<const char*>(data), .bytes = bytes, .root = root}));
    if (rank_ != root) {
      Copy(data, group_->post(root).in, bytes);
      traffic_.bytes_received += bytes;
    } else {
      traffic_.bytes_sent += bytes * (size() - 1);
    }
    return group_->Meet(rank_, false);
  }

  absl::Status Send(const void* data, int64_t bytes, int to, uint32_t tag) override {
    TY_CHECK_NE(to, rank_);
    TY_RETURN_IF_ERROR(group_->Send(data, bytes, rank_, to, tag));
    traffic_.bytes_sent += bytes;
    return absl::OkStatus();
  }

  absl::Status Recv(void* data, int64_t bytes, int from, uint32_t tag) override {
    TY_CHECK_NE(from, rank_);
    TY_RETURN_IF_ERROR(group_->Recv(data, bytes, from, rank_, tag));
    traffic_.bytes_received += bytes;
    return absl::OkStatus();
  }

  absl::Status Barrier() override {
    TY_RETURN_IF_ERROR(MeetWith({.what = "barrier"}));
    return group_->Meet(rank_, false);
  }

  int64_t ReserveSum(int64_t) override { return 0; }

  void Abort() override { group_->Abort(rank_); }
  absl::Status health() const override { return group_->health(rank_); }

  Traffic traffic() const override { return traffic_; }

 private:
  static void Copy(void* to, const void* from, int64_t bytes) {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  }

  // Lays `own` open, waits for the others, and makes sure that they do the same.
  absl::Status MeetWith(const Post& own) {
    TY_RETURN_IF_ERROR(group_->Meet(rank_, true, &own));
    for (int other = 0; other < size(); ++other) {
      const Post& theirs = group_->post(other);
      // Literals of this file: equal texts need not be one object.
      if (std::strcmp(theirs.what, own.what) != 0 || theirs.bytes != own.bytes || theirs.root != own.root ||
          theirs.data.dtype() != own.data.dtype()) {
        return group_->FailAndLeave(
            rank_, absl::InvalidArgumentError(absl::StrCat(
                       "rank ", rank_, " calls ", own.what, " of ", own.bytes, " bytes (root ", own.root, "), rank ",
                       other, " calls ", theirs.what, " of ", theirs.bytes, " (root ", theirs.root, ")")));
      }
    }
    return absl::OkStatus();
  }

  // Until the next meeting the others read only their own parts of `data`, and this rank writes only its own.
  absl::Status SumOwnPart(const char* what, const TensorView& data, float scale) {
    TY_RETURN_IF_ERROR(MeetWith({.what = what, .data = data, .bytes = data.bytes()}));
    const Part own = PartOf(data.size(), size(), rank_);
    const int64_t element_bytes = static_cast<int64_t>(kernels::SizeOf(data.dtype()));
    pieces_.resize(static_cast<size_t>(size()));
    for (int other = 0; other < size(); ++other) {
      pieces_[static_cast<size_t>(other)] =
          static_cast<const char*>(group_->post(other).data.data()) + own.begin * element_bytes;
    }
    if (own.size() > 0) {
      SumInRankOrder(pieces_.data(), size(), own.size(), data.dtype(), scale,
                     static_cast<char*>(data.data()) + own.begin * element_bytes);
    }
    traffic_.bytes_sent += (data.size() - own.size()) * element_bytes;
    traffic_.bytes_received += own.size() * (size() - 1) * element_bytes;
    return absl::OkStatus();
  }

  void CopyForeignParts(const TensorView& data) {
    const int64_t element_bytes = static_cast<int64_t>(kernels::SizeOf(data.dtype()));
    for (int owner = 0; owner < size(); ++owner) {
      const Part part = PartOf(data.size(), size(), owner);
      if (owner == rank_) {
        traffic_.bytes_sent += part.size() * (size() - 1) * element_bytes;
        continue;
      }
      const int64_t offset = part.begin * element_bytes;
      Copy(static_cast<char*>(data.data()) + offset, static_cast<const char*>(group_->post(owner).data.data()) + offset,
           part.size() * element_bytes);
      traffic_.bytes_received += part.size() * element_bytes;
    }
  }

  const std::shared_ptr<LocalGroup> group_;
  const int rank_;
  Traffic traffic_;
  std::vector<const void*> pieces_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeLocalCommunicators(int ranks, const LocalOptions& options) {
  TY_CHECK_GE(ranks, 1);
  auto group = std::make_shared<LocalGroup>(ranks, options.timeout);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < ranks; ++rank) communicators.push_back(std::make_unique<LocalCommunicator>(group, rank));
  return communicators;
}

}  // namespace trainyard::comm
