#include "kernels/core/thread_pool.h"

#include <algorithm>

#include "base/check.h"

namespace trainyard::kernels {
namespace {

// How often a worker looks for the next loop before it sleeps: the ops of a training step follow each other within
// microseconds, and a futex wake costs tens of them. Bounded, so an idle rank leaves its core to others.
constexpr int kSpins = 2000;

void Pause() {
  __builtin_ia32_pause();
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  TY_CHECK_GE(threads, 1);
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { WorkerLoop(); });
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  wake_.NotifyAll();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int64_t count, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t grains = (count + grain - 1) / grain;
  if (workers_.empty() || grains == 1) {
    body(0, count);
    return;
  }
  // A few chunks a thread even out cores of unequal speed without paying for many hand-outs.
  const int64_t chunks = std::min<int64_t>(grains, 4 * threads());
  chunk_size_ = (grains + chunks - 1) / chunks * grain;
  chunks_ = (count + chunk_size_ - 1) / chunk_size_;
  count_ = count;
  body_ = &body;
  next_chunk_.store(0, std::memory_order_relaxed);
  busy_workers_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  {
    MutexLock lock(&mutex_);
    generation_.fetch_add(1, std::memory_order_release);
  }
  wake_.NotifyAll();
  RunChunks();
  for (int spin = 0; spin < kSpins; ++spin) {
    if (busy_workers_.load(std::memory_order_acquire) == 0) return;
    Pause();
  }
  MutexLock lock(&mutex_);
  while (busy_workers_.load(std::memory_order_acquire) != 0) done_.Wait(&mutex_);
}

void ThreadPool::RunChunks() {
  while (true) {
    const int64_t chunk = next_chunk_.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= chunks_) return;
    const int64_t begin = chunk * chunk_size_;
    (*body_)(begin, std::min(count_, begin + chunk_size_));
  }
}

void ThreadPool::WorkerLoop() {
  uint64_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spin) Pause();
    {
      MutexLock lock(&mutex_);
      while (!stopping_ && generation_.load(std::memory_order_acquire) == seen) wake_.Wait(&mutex_);
      if (stopping_) return;
      seen = generation_.load(std::memory_order_acquire);
    }
    RunChunks();
    if (busy_workers_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      MutexLock lock(&mutex_);
      done_.NotifyOne();
    }
  }
}

}  // namespace trainyard::kernels
