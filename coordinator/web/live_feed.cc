#include "coordinator/web/live_feed.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "base/mutex.h"
#include "coordinator/core/transitions.h"
#include "coordinator/web/documents.h"
#include "coordinator/web/json_text.h"

namespace trainyard::coordinator {
namespace {

std::shared_ptr<const std::string> Shared(std::string text) {
  return std::make_shared<const std::string>(std::move(text));
}

std::string Reload(const std::string& reason) {
  return absl::StrCat("event: reload\ndata: {\"reason\":", JsonString(reason), "}\n\n");
}

const char kTooSlow[] = "the page did not read its events fast enough";

}  // namespace

struct LiveFeed::Self {
  Mutex mutex;
  LiveFeed* feed ABSL_GUARDED_BY(mutex) = nullptr;
  std::atomic<bool> is_posted{false};
};

LiveFeed::LiveFeed(LiveFeedOptions options, WatchHub* hub, EventLoop* loop, Outlet outlet)
    : options_(options), hub_(hub), loop_(loop), outlet_(std::move(outlet)), self_(std::make_shared<Self>()) {
  {
    MutexLock lock(&self_->mutex);
    self_->feed = this;
  }
  Subscribe();
}

LiveFeed::~LiveFeed() {
  if (cursor_ != nullptr) hub_->Unsubscribe(cursor_);
  MutexLock lock(&self_->mutex);
  self_->feed = nullptr;
}

void LiveFeed::Subscribe() {
  v1::WatchRequest request;
  request.set_progress(true);
  request.set_include_trials(true);
  is_catching_up_ = true;
  auto cursor = hub_->Subscribe(request, [self = self_] {
    if (self->is_posted.exchange(true)) return;  // a Pump is on its way, and will find this too
    MutexLock lock(&self->mutex);
    if (self->feed == nullptr) return;
    self->feed->loop_->Post([self] {
      self->is_posted = false;
      LiveFeed* feed = nullptr;
      {
        MutexLock lock(&self->mutex);
        feed = self->feed;
      }
      if (feed != nullptr) feed->Pump();  // the loop's thread, which is also the one that ends the feed
    });
  });
  if (cursor.ok()) {
    cursor_ = *std::move(cursor);
  } else {
    cursor_ = nullptr;  // the coordinator is stopping
  }
}

void LiveFeed::Pump() {
  if (cursor_ == nullptr) return;
  v1::WatchResponse response;
  absl::Status end;
  while (cursor_->Pop(&response, &end)) {
    if (response.has_bookmark()) {
      if (std::exchange(is_catching_up_, false)) floor_ = response.revision();
      revision_ = std::max(revision_, response.revision());
    } else if (response.has_job()) {
      TakeJob(response.revision(), std::move(*response.mutable_job()));
    } else {
      const std::string uid = response.progress().job_uid();
      const auto parent = parent_of_.find(uid);
      Progress& progress = progress_[uid];
      progress = {.parent_uid = parent == parent_of_.end() ? "" : parent->second,
                  .event = std::move(*response.mutable_progress()),
                  .sequence = ++sequence_,
                  .since = now_};
    }
  }
  if (end.ok()) return;
  // Cut off for being slow, or the coordinator stops; after a cut the history has a hole.
  if (end.code() == absl::StatusCode::kOutOfRange) {
    LogWarning("web: lost the stream of events: ", std::string(end.message()), "; pages list again");
  }
  cursor_ = nullptr;
  history_.clear();
  history_bytes_ = 0;
  ReloadAll(std::string(end.message()));
  Subscribe();
  if (cursor_ != nullptr) Pump();
}

void LiveFeed::TakeJob(uint64_t revision, v1::Job job) {
  const std::string uid = job.uid(), parent_uid = job.parent_uid();
  if (IsTerminal(job.state())) {
    parent_of_.erase(uid);
    progress_.erase(uid);
  } else if (!parent_uid.empty()) {
    parent_of_[uid] = parent_uid;
  }
  if (is_catching_up_) return;
  TrimForRow(&job);
  Event event{.revision = revision,
              .uid = uid,
              .parent_uid = parent_uid,
              .text = Shared(absl::StrCat("id: ", revision, "\nevent: job\ndata: ", JobJson(job), "\n\n"))};
  revision_ = revision;
  std::vector<StreamId> concerned;
  for (const auto& [id, stream] : streams_) {
    if (Concerns(stream, uid, parent_uid)) concerned.push_back(id);
  }
  for (const StreamId id : concerned) SendTo(id, event.text);
  history_bytes_ += static_cast<int64_t>(event.text->size());
  history_.push_back(std::move(event));
  while (history_.size() > options_.events_kept || history_bytes_ > options_.event_bytes_kept) {
    floor_ = history_.front().revision;
    history_bytes_ -= static_cast<int64_t>(history_.front().text->size());
    history_.pop_front();
  }
}

bool LiveFeed::Concerns(const Stream& stream, const std::string& uid, const std::string& parent_uid) {
  if (stream.job.empty()) return parent_uid.empty();
  return stream.job == uid || stream.job == parent_uid;
}

void LiveFeed::SendTo(StreamId id, std::shared_ptr<const std::string> text) {
  static const auto* const kLastWords = new std::string(Reload(kTooSlow));
  outlet_.send(id, std::move(text), *kLastWords);
}

void LiveFeed::Open(StreamId id, const std::string& job, uint64_t after) {
  Pump();  // a page may have listed what the hub has told but nobody has read yet
  if (after < floor_ || after > revision_ || cursor_ == nullptr) {
    SendTo(id, Shared(Reload("that part of the history is not kept")));
    outlet_.end(id);
    return;
  }
  const Stream& stream = streams_[id] = {.job = job, .next_progress = now_, .seen = sequence_};
  std::string first = absl::StrCat("retry: 2000\nevent: hello\ndata: {\"revision\":\"", revision_, "\"}\n\n");
  for (const Event& event : history_) {
    if (event.revision > after && Concerns(stream, event.uid, event.parent_uid)) first += *event.text;
  }
  SendTo(id, Shared(std::move(first)));
}

void LiveFeed::Ended(StreamId id) {
  streams_.erase(id);
}

void LiveFeed::ReloadAll(const std::string& reason) {
  std::vector<StreamId> ids;
  for (const auto& [id, stream] : streams_) ids.push_back(id);
  const auto text = Shared(Reload(reason));
  for (const StreamId id : ids) {
    SendTo(id, text);
    outlet_.end(id);
  }
}

// What of it the stream has not seen yet; null: nothing.
std::shared_ptr<const std::string> LiveFeed::ProgressText(const Stream& stream) const {
  std::vector<std::string> events;
  for (const auto& [uid, progress] : progress_) {
    if (progress.sequence <= stream.seen || !Concerns(stream, uid, progress.parent_uid)) continue;
    if (uid == stream.job) {
      events.push_back(ProgressJson(progress.event));  // all values: the page of this job shows them
      continue;
    }
    v1::ProgressEvent event = progress.event;
    TrimForRow(event.mutable_progress());
    events.push_back(ProgressJson(event));
  }
  if (events.empty()) return nullptr;
  return Shared(absl::StrCat("event: progress\ndata: [", absl::StrJoin(events, ","), "]\n\n"));
}

void LiveFeed::SendProgress() {
  // Streams of the same kind are due together, so most texts are made once.
  std::map<std::pair<std::string, uint64_t>, std::shared_ptr<const std::string>> made;
  std::vector<std::pair<StreamId, std::shared_ptr<const std::string>>> due;
  for (auto& [id, stream] : streams_) {
    if (now_ < stream.next_progress || stream.seen == sequence_) continue;
    const auto [it, is_new] = made.try_emplace({stream.job, stream.seen});
    if (is_new) it->second = ProgressText(stream);
    stream.seen = sequence_;
    if (it->second == nullptr) continue;
    stream.next_progress = now_ + (stream.job.empty() ? options_.all_progress : options_.job_progress);
    due.emplace_back(id, it->second);
  }
  for (auto& [id, text] : due) SendTo(id, std::move(text));
  // By now every stream has had it.
  std::erase_if(progress_, [&](const auto& entry) { return now_ - entry.second.since > options_.all_progress; });
}

void LiveFeed::Tick(absl::Duration now) {
  now_ = now;
  if (is_catching_up_) Pump();  // the hub wakes nobody for the state it begins with
  if (!progress_.empty()) SendProgress();
  if (now < next_heartbeat_) return;
  next_heartbeat_ = now + options_.heartbeat;
  std::vector<StreamId> ids;
  for (const auto& [id, stream] : streams_) ids.push_back(id);
  const auto beat = Shared(": still here\n\n");
  for (const StreamId id : ids) SendTo(id, beat);
}

}  // namespace trainyard::coordinator
