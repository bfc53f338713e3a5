#include "coordinator/api/engine.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "proto/rpc/error_details.h"

namespace trainyard::coordinator {
namespace {

constexpr size_t kMaxLazyWrites = 20'000;

absl::Status StoppingError() {
  return ErrorWithReason(absl::StatusCode::kUnavailable, "STOPPING", "the coordinator is stopping");
}

// What a user is told: the code that means what to do next, with the store's own words.
absl::Status StoreError(const absl::Status& status) {
  const bool is_full = status.code() == absl::StatusCode::kResourceExhausted;
  return ErrorWithReason(
      is_full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable,
      is_full ? "STORE_FULL" : "STORE_UNAVAILABLE",
      absl::StrCat("the coordinator cannot store changes now, try again later: ", std::string(status.message())));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options, std::unique_ptr<Store> store,
                                                       Clock* clock, EngineListener* listener) {
  TY_ASSIGN_OR_RETURN(Records records, store->Load());
  Core core(options.timing, std::move(records), {clock->Now(), clock->Monotonic()});
  return std::unique_ptr<Engine>(new Engine(options, std::move(store), clock, listener, std::move(core)));
}

Engine::Engine(const EngineOptions& options, std::unique_ptr<Store> store, Clock* clock, EngineListener* listener,
               Core core)
    : options_(options), clock_(clock), listener_(listener), store_(std::move(store)), core_(std::move(core)) {
  thread_ = std::thread([this] { Run(); });
}

Engine::~Engine() {
  Stop();
}

bool Engine::Enqueue(Input input) {
  MutexLock lock(&mutex_);
  if (stopping_) return false;
  if (input.kind == Kind::kChange && waiting_.size() >= options_.max_waiting) return false;
  waiting_.push_back(std::move(input));
  wake_.NotifyOne();
  return true;
}

void Engine::Change(Apply apply, Done done) {
  Done kept = done;
  if (Enqueue({Kind::kChange, std::move(apply), std::move(done), nullptr, nullptr})) return;
  bool stopping = false;
  {
    MutexLock lock(&mutex_);
    stopping = stopping_;
  }
  kept(stopping ? StoppingError()
                : ErrorWithReason(absl::StatusCode::kResourceExhausted, "OVERLOADED",
                                  "too many changes are waiting; try again later"),
       nullptr, now());
}

void Engine::FromWorker(WorkerInput input) {
  Enqueue({Kind::kWorker, nullptr, nullptr, std::move(input), nullptr});
}

void Engine::FromWorkerVolatile(WorkerInput input) {
  Enqueue({Kind::kWorkerVolatile, nullptr, nullptr, std::move(input), nullptr});
}

void Engine::Read(Reader reader) {
  Input input{Kind::kRead, nullptr, nullptr, nullptr, std::move(reader)};
  Reader kept = input.read;
  if (Enqueue(std::move(input))) return;
  Stop();  // the thread has ended now, so this one may read
  MutexLock lock(&mutex_);
  kept(core_, *store_, now());
}

uint64_t Engine::AddSession(std::shared_ptr<SessionSink> sink) {
  MutexLock lock(&mutex_);
  sinks_[++last_session_] = std::move(sink);
  return last_session_;
}

void Engine::RemoveSession(uint64_t session) {
  std::shared_ptr<SessionSink> sink;  // ends after the lock
  MutexLock lock(&mutex_);
  const auto it = sinks_.find(session);
  if (it == sinks_.end()) return;
  sink = std::move(it->second);
  sinks_.erase(it);
}

void Engine::CloseSessions(const absl::Status& status) {
  std::map<uint64_t, std::shared_ptr<SessionSink>> sinks;
  {
    MutexLock lock(&mutex_);
    sinks = sinks_;
  }
  for (const auto& [session, sink] : sinks) sink->Close(status);
}

void Engine::Stop() {
  std::thread thread;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.NotifyOne();
    std::swap(thread, thread_);
  }
  if (thread.joinable()) thread.join();
}

std::deque<Engine::Input> Engine::Take(bool* stopping) {
  MutexLock lock(&mutex_);
  while (waiting_.empty() && !stopping_) {
    const absl::Duration wait = next_tick_ - clock_->Monotonic();
    if (wait <= absl::ZeroDuration()) break;
    wake_.WaitFor(&mutex_, wait);
  }
  *stopping = stopping_;
  std::deque<Input> inputs;
  while (!waiting_.empty() && inputs.size() < options_.max_batch) {
    inputs.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  return inputs;
}

void Engine::Run() {
  while (true) {
    bool stopping = false;
    std::deque<Input> inputs = Take(&stopping);
    const bool is_last = stopping && inputs.empty();
    if (trouble_.ok() && !held_.empty()) {
      held_.insert(held_.end(), std::make_move_iterator(inputs.begin()), std::make_move_iterator(inputs.end()));
      inputs = std::exchange(held_, {});
    }
    Batch batch;
    ApplyInputs(std::move(inputs), &batch);
    const Now now = this->now();
    if (now.mono >= next_tick_) {
      next_tick_ = now.mono + options_.tick_interval;
      if (trouble_.ok()) {
        core_.Tick(now, &batch.effects);
      } else if (now.mono >= next_probe_) {
        ProbeStore();
      }
    }
    if (trouble_.ok()) {
      const absl::Duration begin = clock_->Monotonic();
      const bool has_passed = core_.Schedule(now, &batch.effects);
      if (has_passed && listener_ != nullptr) listener_->OnSchedulePass(clock_->Monotonic() - begin);
    }
    CommitBatch(std::move(batch), is_last);
    if (is_last) return;
  }
}

void Engine::ApplyInputs(std::deque<Input> inputs, Batch* batch) {
  for (Input& input : inputs) {
    const Now now = this->now();
    switch (input.kind) {
      case Kind::kRead:
        batch->reads.push_back(std::move(input.read));
        break;
      case Kind::kWorkerVolatile:
        input.worker(core_, now, &batch->effects);
        break;
      case Kind::kWorker:
        if (!trouble_.ok()) {
          held_.push_back(std::move(input));
          break;
        }
        input.worker(core_, now, &batch->effects);
        batch->from_workers.push_back(std::move(input));
        break;
      case Kind::kChange:
        if (!trouble_.ok()) {
          batch->answers.emplace_back(StoreError(trouble_), std::move(input.done));
          break;
        }
        absl::Status status = input.apply(core_, now, &batch->effects);
        batch->answers.emplace_back(std::move(status), std::move(input.done));
        break;
    }
  }
}

// Metric points are not worth a commit of their own.
void Engine::TakeLazyWrites(Effects* effects) {
  const auto is_lazy = [](const Write& write) { return std::holds_alternative<PutMetric>(write); };
  for (Write& write : effects->writes) {
    if (!is_lazy(write)) continue;
    if (lazy_.empty()) lazy_since_ = clock_->Monotonic();
    if (lazy_.size() < kMaxLazyWrites) lazy_.push_back(std::move(write));
  }
  std::erase_if(effects->writes, is_lazy);
}

void Engine::CommitBatch(Batch batch, bool flush) {
  Effects& effects = batch.effects;
  TakeLazyWrites(&effects);
  // A worker forgets what it sent before a heartbeat once that is acknowledged, so points go to disk before any push.
  const bool must_flush =
      flush || !effects.pushes.empty() || clock_->Monotonic() - lazy_since_ >= options_.lazy_interval;
  const bool lazy_is_due = !lazy_.empty() && must_flush && trouble_.ok();
  absl::Status status;
  if (!effects.writes.empty() || lazy_is_due) {
    std::vector<Write> writes;
    for (Write& write : lazy_) {
      // Its job may have been deleted since.
      if (core_.Record(std::get<PutMetric>(write).uid) != nullptr) writes.push_back(write);
    }
    writes.insert(writes.end(), effects.writes.begin(), effects.writes.end());
    const absl::Duration begin = clock_->Monotonic();
    status = store_->Commit(writes);
    if (listener_ != nullptr) listener_->OnCommit(clock_->Monotonic() - begin, writes.size(), status);
    if (status.ok()) lazy_.clear();
  }
  if (!status.ok()) {
    Recover(std::move(batch), status);
    return;
  }
  Publish(effects);
  const Now now = this->now();
  if (listener_ != nullptr) listener_->OnCommitted(effects, core_, now);
  for (const auto& [answer, done] : batch.answers) done(answer, &core_, now);
  for (const Reader& read : batch.reads) read(core_, *store_, now);
}

void Engine::Recover(Batch batch, const absl::Status& status) {
  LogError("cannot store changes: ", std::string(status.message()), "; serving reads until that works again");
  trouble_ = status;
  next_probe_ = clock_->Monotonic() + options_.probe_interval;
  if (listener_ != nullptr) listener_->OnWritable(false);
  // A broken rule is a bug of ours that the same input would meet again.
  if (status.code() != absl::StatusCode::kDataLoss) {
    held_.insert(held_.begin(), std::make_move_iterator(batch.from_workers.begin()),
                 std::make_move_iterator(batch.from_workers.end()));
  }
  while (true) {
    absl::StatusOr<Records> records = store_->Load();
    if (records.ok()) {
      Core core(options_.timing, *std::move(records), now());
      core.AdoptVolatile(core_);
      core_ = std::move(core);
      break;
    }
    LogError("cannot read the store: ", std::string(records.status().message()));
    std::this_thread::sleep_for(absl::ToChronoNanoseconds(options_.probe_interval));
  }
  const Now now = this->now();
  for (const auto& [answer, done] : batch.answers) {
    done(answer.ok() ? StoreError(status) : answer, &core_, now);
  }
  for (const Reader& read : batch.reads) read(core_, *store_, now);
}

void Engine::ProbeStore() {
  next_probe_ = clock_->Monotonic() + options_.probe_interval;
  if (!store_->Probe().ok()) return;
  LogInfo("changes can be stored again");
  trouble_ = absl::OkStatus();
  if (listener_ != nullptr) listener_->OnWritable(true);
}

void Engine::Publish(const Effects& effects) {
  const auto sink_of = [&](uint64_t session) -> std::shared_ptr<SessionSink> {
    MutexLock lock(&mutex_);
    const auto it = sinks_.find(session);
    return it == sinks_.end() ? nullptr : it->second;
  };
  for (const Push& push : effects.pushes) {
    if (const auto sink = sink_of(push.session)) sink->Send(push.message);
  }
  for (const CloseSession& close : effects.closes) {
    if (const auto sink = sink_of(close.session)) sink->Close(close.status);
  }
}

}  // namespace trainyard::coordinator
