// Server-sent events for all open pages from one watcher of the hub: each event is read and written as text once,
// however many pages there are. Events on the wire:
//
//   hello     {"revision": R}           the stream is open; what it sends is newer than what the page listed
//   job       row of a job, id: its revision      a committed change
//   progress  [ProgressEvent, ...]      newest progress of jobs that did a step since the last; not replayed
//   reload    {"reason": ...}           history is gone, or the page was too slow: list again; the stream ends
//   comments every 15 s, so that both ends learn of a dead connection
//
// A page lists at revision R and opens the stream after R; a browser that reconnects says the last id it saw. What is
// younger than the feed's own short history is sent again, otherwise it is told to reload.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "base/event_loop.h"
#include "coordinator/api/watch_hub.h"

namespace trainyard::coordinator {

struct LiveFeedOptions {
  size_t events_kept = 2000;
  int64_t event_bytes_kept = 4 << 20;
  absl::Duration heartbeat = absl::Seconds(15);
  absl::Duration job_progress = absl::Milliseconds(200);  // at most so often to a page of one job
  absl::Duration all_progress = absl::Seconds(1);         // and to one of all jobs
};

// For the loop's thread, but for the constructor and destructor.
class LiveFeed {
 public:
  using StreamId = uint64_t;
  // How bytes get to a stream; both may end streams, which is told by `Ended`.
  struct Outlet {
    std::function<void(StreamId, std::shared_ptr<const std::string> event, const std::string& last_words)> send;
    std::function<void(StreamId)> end;
  };

  // Hub and loop outlive the feed.
  LiveFeed(LiveFeedOptions options, WatchHub* hub, EventLoop* loop, Outlet outlet);
  ~LiveFeed();

  // `job`: a uid, then events of that job and of its trials; empty: of all jobs but trials. `after`: the revision up to
  // which the page knows everything.
  void Open(StreamId id, const std::string& job, uint64_t after);
  void Ended(StreamId id);

  // Heartbeats and progress; call at least ten times a second while there are streams.
  void Tick(absl::Duration now);

  size_t streams() const { return streams_.size(); }

 private:
  struct Stream {
    std::string job;
    absl::Duration next_progress;
    uint64_t seen = 0;  // sequence number of the newest progress that it has had
  };
  struct Event {
    uint64_t revision = 0;
    std::string uid, parent_uid;
    std::shared_ptr<const std::string> text;
  };
  struct Progress {
    std::string parent_uid;
    v1::ProgressEvent event;
    uint64_t sequence = 0;
    absl::Duration since;  // when it came
  };
  // Shared with a wake-up that the hub may be calling just now.
  struct Self;

  void Subscribe();
  void Pump();
  void TakeJob(uint64_t revision, v1::Job job);
  void ReloadAll(const std::string& reason);
  std::shared_ptr<const std::string> ProgressText(const Stream& stream) const;
  void SendProgress();
  static bool Concerns(const Stream& stream, const std::string& uid, const std::string& parent_uid);
  void SendTo(StreamId id, std::shared_ptr<const std::string> text);

  const LiveFeedOptions options_;
  WatchHub* const hub_;
  EventLoop* const loop_;
  const Outlet outlet_;
  const std::shared_ptr<Self> self_;
  std::shared_ptr<WatchCursor> cursor_;
  bool is_catching_up_ = true;  // until the hub has told its state, which pages list themselves
  absl::Duration now_ = absl::ZeroDuration();
  absl::Duration next_heartbeat_ = absl::ZeroDuration();
  uint64_t revision_ = 0;  // of the newest event
  uint64_t floor_ = 0;     // everything after it is in history_
  std::deque<Event> history_;
  int64_t history_bytes_ = 0;
  std::map<StreamId, Stream> streams_;
  uint64_t sequence_ = 0;
  std::map<std::string, Progress> progress_;      // newest of each job, of the last second
  std::map<std::string, std::string> parent_of_;  // of trials that have not ended
};

}  // namespace trainyard::coordinator
