// Fans committed events out to watchers (CP-51): ordered, unique, gapless, resumable at a revision.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "coordinator/core/effects.h"
#include "coordinator/store/store.h"

namespace trainyard::coordinator {

struct WatchHubOptions {
  int64_t events_kept = 20'000;
  int64_t event_bytes_kept = 32 << 20;
  int64_t buffer_bytes = 4 << 20;  // of one watcher, beyond the state it starts with
};

// One watcher's place in the stream. Made by WatchHub::Subscribe.
class WatchCursor {
 public:
  // Called when there may be something to Pop; on any thread, with no lock held. Must not block.
  using Wake = std::function<void()>;

  // Takes the next message. False: nothing now; then `*end` is not OK if the stream has ended with it.
  bool Pop(v1::WatchResponse* response, absl::Status* end);

 private:
  friend class WatchHub;
  struct Item {
    uint64_t revision = 0;
    std::shared_ptr<const v1::Job> job;                 // or
    std::shared_ptr<const v1::ProgressEvent> progress;  // or neither: a bookmark
    int64_t bytes = 0;
  };
  void Push(Item item, int64_t limit);

  std::string name_space_, job_;  // empty: all
  bool wants_progress_ = false;
  bool wants_trials_ = false;
  Wake wake_;
  Mutex mutex_;
  std::deque<Item> items_ ABSL_GUARDED_BY(mutex_);
  int64_t buffered_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t last_revision_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
};

// Safe from any thread.
class WatchHub {
 public:
  // `jobs`: the state now; `events`: the retained ones, all after `compacted_revision`.
  WatchHub(const WatchHubOptions& options, const std::vector<JobRecord>& jobs, std::vector<StoredEvent> events,
           uint64_t compacted_revision, uint64_t revision);

  // One job, a trial or not, by name or uid; or all jobs, with their trials only if these are asked for.
  // OUT_OF_RANGE: that history is gone, or has not happened yet; NOT_FOUND: no such job.
  absl::StatusOr<std::shared_ptr<WatchCursor>> Subscribe(const v1::WatchRequest& request, WatchCursor::Wake wake);
  void Unsubscribe(const std::shared_ptr<WatchCursor>& cursor);

  void Publish(const Effects& effects);
  // Tells each watcher up to where it has seen everything.
  void Bookmark();
  // Ends all streams with `status`.
  void Close(const absl::Status& status);

  int watchers() const;
  int64_t dropped() const;  // watchers that were cut off for being slow

 private:
  static bool Matches(const WatchCursor& cursor, const v1::Job& job);

  const WatchHubOptions options_;
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<const v1::Job>> latest_ ABSL_GUARDED_BY(mutex_);
  std::deque<StoredEvent> events_ ABSL_GUARDED_BY(mutex_);
  int64_t event_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t compacted_ ABSL_GUARDED_BY(mutex_);
  uint64_t revision_ ABSL_GUARDED_BY(mutex_);
  std::set<std::shared_ptr<WatchCursor>> cursors_ ABSL_GUARDED_BY(mutex_);
  int64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status closed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace trainyard::coordinator
