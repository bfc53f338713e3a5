#include "kernels/core/simt/late_copies.h"

#include <cstring>
#include <deque>
#include <memory>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"
#include "kernels/core/simt/guard.h"
#include "kernels/core/simt/waits.h"

namespace trainyard::simt {
namespace {

struct Queue;

// A copy, or with `other` what another queue must have run first.
struct Entry {
  void* to = nullptr;
  const void* from = nullptr;
  int64_t bytes = 0;
  std::shared_ptr<Queue> other = nullptr;
  int64_t other_count = 0;
};

struct Queue {
  StreamKind kind = StreamKind::kKernels;
  std::deque<Entry> entries;
  int64_t begun = 0;  // entries that have left the queue
  int64_t given() const { return begun + static_cast<int64_t>(entries.size()); }
};

// A stream's handle points to one of these: queues live as long as another waits for them.
using Handle = std::shared_ptr<Queue>;

struct Streams {
  Mutex mutex;
  std::set<Handle> all ABSL_GUARDED_BY(mutex);
};

Streams& AllStreams() {
  static Streams* const streams = new Streams;
  return *streams;
}

const Handle& QueueOf(void* stream) {
  return *static_cast<Handle*>(stream);
}

// Until `count` entries have been run since the stream was made.
void Run(Queue& queue, int64_t count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(AllStreams().mutex) {
  while (queue.begun < count) {
    const Entry entry = std::move(queue.entries.front());
    queue.entries.pop_front();
    ++queue.begun;
    if (entry.other != nullptr) {
      Run(*entry.other, entry.other_count);
      continue;
    }
    OpenGuardedMemory();
    std::memcpy(entry.to, entry.from, static_cast<size_t>(entry.bytes));
    CloseGuardedMemory();
    CountCopy(entry.bytes);
  }
}

}  // namespace

void* CreateStream(StreamKind kind) {
  auto* const handle = new Handle(std::make_shared<Queue>());
  (*handle)->kind = kind;
  MutexLock lock(&AllStreams().mutex);
  AllStreams().all.insert(*handle);
  return handle;
}

void DestroyStream(void* stream) {
  {
    MutexLock lock(&AllStreams().mutex);
    Run(*QueueOf(stream), QueueOf(stream)->given());
    AllStreams().all.erase(QueueOf(stream));
  }
  delete static_cast<Handle*>(stream);
}

void EnqueueCopy(void* stream, void* to, const void* from, int64_t bytes) {
  CheckReachable(to);
  CheckReachable(from);
  MutexLock lock(&AllStreams().mutex);
  TY_CHECK(QueueOf(stream)->kind == StreamKind::kCopies);
  QueueOf(stream)->entries.push_back({.to = to, .from = from, .bytes = bytes});
  CloseGuardedMemory();
}

void OrderStreams(void* stream, void* other) {
  MutexLock lock(&AllStreams().mutex);
  Queue& queue = *QueueOf(stream);
  const Handle& first = QueueOf(other);
  if (queue.kind == StreamKind::kKernels) {
    Run(*first, first->given());
  } else if (first->given() > first->begun) {
    queue.entries.push_back({.other = first, .other_count = first->given()});
  }
}

void FinishStream(void* stream) {
  MutexLock lock(&AllStreams().mutex);
  Run(*QueueOf(stream), QueueOf(stream)->given());
}

void FinishAllStreams() {
  MutexLock lock(&AllStreams().mutex);
  for (const Handle& queue : AllStreams().all) Run(*queue, queue->given());
}

}  // namespace trainyard::simt
