#include "coordinator/api/watch_hub.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"

namespace trainyard::coordinator {

bool WatchCursor::Pop(v1::WatchResponse* response, absl::Status* end) {
  MutexLock lock(&mutex_);
  *end = end_;
  if (!end_.ok() || items_.empty()) return false;
  const Item item = std::move(items_.front());
  items_.pop_front();
  buffered_bytes_ -= item.bytes;
  response->Clear();
  response->set_revision(item.revision);
  if (item.job != nullptr) {
    *response->mutable_job() = *item.job;
  } else if (item.progress != nullptr) {
    *response->mutable_progress() = *item.progress;
  } else {
    response->mutable_bookmark();
  }
  return true;
}

void WatchCursor::Push(Item item, int64_t limit) {
  MutexLock lock(&mutex_);
  if (!end_.ok()) return;
  if (item.progress == nullptr) last_revision_ = std::max(last_revision_, item.revision);
  buffered_bytes_ += item.bytes;
  if (buffered_bytes_ > limit) {
    end_ = ErrorWithReason(absl::StatusCode::kOutOfRange, "SLOW_WATCHER",
                           absl::StrCat("the watcher fell more than ", limit, " bytes behind; start again"));
    items_.clear();
    return;
  }
  items_.push_back(std::move(item));
}

WatchHub::WatchHub(const WatchHubOptions& options, const std::vector<JobRecord>& jobs, std::vector<StoredEvent> events,
                   uint64_t compacted_revision, uint64_t revision)
    : options_(options), compacted_(compacted_revision), revision_(revision) {
  for (const JobRecord& record : jobs) {
    latest_[record.job().uid()] = std::make_shared<const v1::Job>(record.job());
  }
  for (StoredEvent& event : events) {
    event_bytes_ += static_cast<int64_t>(event.job->ByteSizeLong());
    events_.push_back(std::move(event));
  }
}

bool WatchHub::Matches(const WatchCursor& cursor, const v1::Job& job) {
  if (!cursor.name_space_.empty() && job.namespace_() != cursor.name_space_) return false;
  if (cursor.job_.empty()) return cursor.wants_trials_ || job.parent_uid().empty();
  return job.uid() == cursor.job_ || job.name() == cursor.job_;
}

absl::StatusOr<std::shared_ptr<WatchCursor>> WatchHub::Subscribe(const v1::WatchRequest& request,
                                                                 WatchCursor::Wake wake) {
  auto cursor = std::make_shared<WatchCursor>();
  cursor->name_space_ = request.namespace_();
  cursor->job_ = request.job();
  if (!cursor->job_.empty() && cursor->name_space_.empty()) cursor->name_space_ = "default";
  cursor->wants_progress_ = request.progress();
  cursor->wants_trials_ = request.include_trials();
  cursor->wake_ = std::move(wake);

  MutexLock lock(&mutex_);
  if (!closed_.ok()) return closed_;
  const uint64_t after = request.after_revision();
  if (after > revision_ || (after > 0 && after < compacted_)) {
    return ErrorWithReason(absl::StatusCode::kOutOfRange, "REVISION_COMPACTED",
                           absl::StrCat("revision ", after, " is not in the kept history [", compacted_, ", ",
                                        revision_, "]; start again with revision 0"),
                           {{"revision", absl::StrCat(after)}, {"compacted", absl::StrCat(compacted_)}});
  }
  std::vector<std::shared_ptr<const v1::Job>> state;
  bool is_known = cursor->job_.empty();
  for (const auto& [uid, job] : latest_) {
    // A uid is unique, so it needs no namespace.
    if (!cursor->job_.empty() && uid == cursor->job_) cursor->name_space_ = job->namespace_();
    if (!Matches(*cursor, *job)) continue;
    is_known = true;
    state.push_back(job);
  }
  if (!is_known) {
    return ErrorWithReason(absl::StatusCode::kNotFound, "JOB_NOT_FOUND",
                           absl::StrCat("no job \"", request.job(), "\" in namespace ", cursor->name_space_),
                           {{"job", request.job()}});
  }
  {
    MutexLock cursor_lock(&cursor->mutex_);
    if (after == 0) {
      // What a watcher starts with does not count towards its buffer: it is pointers to what the hub holds anyway.
      std::sort(state.begin(), state.end(), [](const auto& a, const auto& b) {
        return a->etag().size() != b->etag().size() ? a->etag().size() < b->etag().size() : a->etag() < b->etag();
      });
      for (auto& job : state) {
        cursor->items_.push_back({.revision = revision_, .job = std::move(job), .progress = nullptr, .bytes = 0});
      }
    } else {
      for (const StoredEvent& event : events_) {
        if (event.revision <= after || !Matches(*cursor, *event.job)) continue;
        cursor->items_.push_back({.revision = event.revision, .job = event.job, .progress = nullptr, .bytes = 0});
      }
    }
    cursor->items_.push_back({.revision = revision_, .job = nullptr, .progress = nullptr, .bytes = 0});
    cursor->last_revision_ = revision_;
  }
  cursors_.insert(cursor);
  return cursor;
}

void WatchHub::Unsubscribe(const std::shared_ptr<WatchCursor>& cursor) {
  MutexLock lock(&mutex_);
  cursors_.erase(cursor);
}

void WatchHub::Publish(const Effects& effects) {
  std::vector<std::shared_ptr<WatchCursor>> to_wake;
  {
    MutexLock lock(&mutex_);
    const auto send = [&](const std::shared_ptr<WatchCursor>& cursor, WatchCursor::Item item) {
      cursor->Push(std::move(item), options_.buffer_bytes);
      if (to_wake.empty() || to_wake.back() != cursor) to_wake.push_back(cursor);
    };
    for (const Write& write : effects.writes) {
      if (const auto* deleted = std::get_if<DeleteJob>(&write)) latest_.erase(deleted->uid);
      const auto* event = std::get_if<PutEvent>(&write);
      if (event == nullptr) continue;
      const int64_t bytes = static_cast<int64_t>(event->job->ByteSizeLong());
      latest_[event->job->uid()] = event->job;
      events_.push_back({event->revision, event->job});
      event_bytes_ += bytes;
      revision_ = event->revision;
      for (const auto& cursor : cursors_) {
        if (!Matches(*cursor, *event->job)) continue;
        send(cursor, {.revision = event->revision, .job = event->job, .progress = nullptr, .bytes = bytes});
      }
    }
    while (static_cast<int64_t>(events_.size()) > options_.events_kept || event_bytes_ > options_.event_bytes_kept) {
      compacted_ = events_.front().revision;
      event_bytes_ -= static_cast<int64_t>(events_.front().job->ByteSizeLong());
      events_.pop_front();
    }
    for (const v1::ProgressEvent& event : effects.progress) {
      const auto job = latest_.find(event.job_uid());
      if (job == latest_.end()) continue;
      std::shared_ptr<const v1::ProgressEvent> shared;
      for (const auto& cursor : cursors_) {
        if (!cursor->wants_progress_ || !Matches(*cursor, *job->second)) continue;
        if (shared == nullptr) shared = std::make_shared<const v1::ProgressEvent>(event);
        send(cursor, {.revision = revision_,
                      .job = nullptr,
                      .progress = shared,
                      .bytes = static_cast<int64_t>(event.ByteSizeLong())});
      }
    }
    for (auto it = cursors_.begin(); it != cursors_.end();) {
      MutexLock cursor_lock(&(*it)->mutex_);
      const bool is_cut = !(*it)->end_.ok();
      if (is_cut) ++dropped_;
      it = is_cut ? cursors_.erase(it) : std::next(it);
    }
  }
  for (const auto& cursor : to_wake) cursor->wake_();
}

void WatchHub::Bookmark() {
  std::vector<std::shared_ptr<WatchCursor>> to_wake;
  {
    MutexLock lock(&mutex_);
    for (const auto& cursor : cursors_) {
      {
        MutexLock cursor_lock(&cursor->mutex_);
        if (cursor->last_revision_ >= revision_) continue;
      }
      cursor->Push({.revision = revision_, .job = nullptr, .progress = nullptr, .bytes = 0}, options_.buffer_bytes);
      to_wake.push_back(cursor);
    }
  }
  for (const auto& cursor : to_wake) cursor->wake_();
}

void WatchHub::Close(const absl::Status& status) {
  std::set<std::shared_ptr<WatchCursor>> cursors;
  {
    MutexLock lock(&mutex_);
    closed_ = status;
    cursors.swap(cursors_);
    for (const auto& cursor : cursors) {
      MutexLock cursor_lock(&cursor->mutex_);
      if (cursor->end_.ok()) cursor->end_ = status;
    }
  }
  for (const auto& cursor : cursors) cursor->wake_();
}

int WatchHub::watchers() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(cursors_.size());
}

int64_t WatchHub::dropped() const {
  MutexLock lock(&mutex_);
  return dropped_;
}

}  // namespace trainyard::coordinator
