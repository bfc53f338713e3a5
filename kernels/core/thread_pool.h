// Fork-join over index ranges, for one op at a time. Which thread does which range never shows in the result: ops
// split work so that every output element is computed by the same arithmetic whatever the thread count.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/mutex.h"

namespace trainyard::kernels {

class ThreadPool {
 public:
  // `threads` >= 1 counts the calling thread; threads - 1 are started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end) over disjoint ranges that cover [0, count), each a multiple of `grain` long except the
  // last, and returns when all are done. Not reentrant: one caller at a time, and not from inside a body. Allocates
  // nothing: a training step calls it hundreds of times.
  void ParallelFor(int64_t count, int64_t grain, absl::FunctionRef<void(int64_t begin, int64_t end)> body);

 private:
  void WorkerLoop();
  void RunChunks();

  std::vector<std::thread> workers_;

  Mutex mutex_;
  CondVar wake_;
  CondVar done_;
  // Chunks are handed out by an atomic counter; the generation tells workers that a new loop has begun.
  std::atomic<uint64_t> generation_{0};
  std::atomic<int64_t> next_chunk_{0};
  std::atomic<int> busy_workers_{0};
  int64_t count_ = 0;
  int64_t chunk_size_ = 0;
  int64_t chunks_ = 0;
  const absl::FunctionRef<void(int64_t, int64_t)>* body_ = nullptr;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace trainyard::kernels
