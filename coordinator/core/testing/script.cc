#include "coordinator/core/testing/script.h"

#include <algorithm>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "google/protobuf/text_format.h"
#include "proto/rpc/error_details.h"

namespace trainyard::coordinator {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);

template <typename Enum, typename Parse>
Enum ParseEnum(const std::string& text, Parse parse, const char* prefix) {
  Enum value;
  TY_CHECK(parse(absl::StrCat(prefix, text), &value));
  return value;
}

v1::TaskState TaskStateOf(const std::string& text) {
  return ParseEnum<v1::TaskState>(
      text, [](const std::string& name, v1::TaskState* value) { return v1::TaskState_Parse(name, value); },
      "TASK_STATE_");
}

std::string CodeName(absl::StatusCode code) {
  return absl::StatusCodeToString(code);
}

}  // namespace

struct Script::Words {
  std::vector<std::string> plain;
  std::map<std::string, std::string> named;

  explicit Words(const std::string& line) {
    for (const absl::string_view piece : absl::StrSplit(line, ' ', absl::SkipEmpty())) {
      const std::string word(piece);
      const size_t equals = word.find('=');
      if (equals == std::string::npos) {
        plain.push_back(word);
      } else {
        named[word.substr(0, equals)] = word.substr(equals + 1);
      }
    }
  }
  std::string Get(const std::string& name, const std::string& otherwise = "") const {
    const auto it = named.find(name);
    return it == named.end() ? otherwise : it->second;
  }
  int64_t Int(const std::string& name, int64_t otherwise) const {
    int64_t value = otherwise;
    const auto it = named.find(name);
    if (it != named.end()) TY_CHECK(absl::SimpleAtoi(it->second, &value));
    return value;
  }
  bool Has(const std::string& word) const { return std::find(plain.begin(), plain.end(), word) != plain.end(); }
};

Script::Script() {
  now_ = {absl::FromUnixSeconds(1'700'000'000), absl::Seconds(1000)};
  core_ = std::make_unique<Core>(timing_, records_.Start(), now_);
}

v1::JobSpec Script::SpecOf(const Words& words) const {
  v1::JobSpec spec;
  TY_CHECK(google::protobuf::TextFormat::ParseFromString(
      R"(model { preset: "llama-1m" } data { path: "d" sequence_length: 64 } training { steps: 10 } pretrain {})",
      &spec));
  if (words.Has("driver")) {
    spec.clear_training();
    spec.mutable_prune_search();
  }
  for (const char* condition : {"after", "finished"}) {
    const std::vector<std::string> others = absl::StrSplit(words.Get(condition), ',', absl::SkipEmpty());
    for (const std::string& other : others) {
      v1::Dependency& dependency = *spec.add_depends_on();
      dependency.set_job(other);
      if (std::string(condition) == "finished") dependency.set_condition(v1::Dependency::CONDITION_FINISHED);
    }
  }
  if (words.named.contains("model_of")) {
    spec.mutable_model()->mutable_artifact()->set_job(words.Get("model_of"));
    spec.mutable_model()->mutable_artifact()->set_artifact(words.Get("artifact"));
  }
  if (words.plain.size() > 1 && words.plain[1] != "suspend") spec.set_name(words.plain[1]);
  const int ranks = static_cast<int>(words.Int("ranks", 1));
  if (words.Has("gpu")) spec.mutable_world()->set_slot_type(v1::SLOT_TYPE_GPU);
  spec.mutable_world()->set_min(ranks);
  spec.mutable_world()->set_max(ranks);
  if (words.named.contains("per_worker")) {
    spec.mutable_world()->set_slots_per_worker(static_cast<int>(words.Int("per_worker", 1)));
  }
  if (words.named.contains("priority")) spec.set_priority(static_cast<int>(words.Int("priority", 0)));
  if (words.named.contains("user_failures")) {
    spec.mutable_retry()->set_max_user_failures(static_cast<int>(words.Int("user_failures", 0)));
  }
  if (words.named.contains("infra_failures")) {
    spec.mutable_retry()->set_max_infra_failures(static_cast<int>(words.Int("infra_failures", 0)));
  }
  if (words.named.contains("no_progress")) {
    spec.mutable_retry()->set_no_progress_limit(static_cast<int>(words.Int("no_progress", 3)));
  }
  const auto duration = [&](const char* name, google::protobuf::Duration* field) {
    absl::Duration value;
    TY_CHECK(absl::ParseDuration(words.Get(name), &value));
    *field = ToProto(value);
  };
  if (words.named.contains("active_deadline")) duration("active_deadline", spec.mutable_active_deadline());
  if (words.named.contains("queue_deadline")) duration("queue_deadline", spec.mutable_queue_deadline());
  if (words.named.contains("lost_after")) duration("lost_after", spec.mutable_lost_after());
  if (words.named.contains("stop_grace")) duration("stop_grace", spec.mutable_stop_grace());
  if (words.named.contains("ttl")) duration("ttl", spec.mutable_ttl_after_finish());
  if (words.Has("suspend")) spec.set_suspend(true);
  return spec;
}

std::string Script::UidOf(const std::string& name) const {
  const auto uid = core_->Find("", name);
  TY_CHECK_OK(uid);
  return *uid;
}

std::string Script::NameOf(const std::string& uid) const {
  const JobRecord* record = core_->Record(uid);
  return record == nullptr ? uid : record->job().name();
}

std::string Script::WorkerOf(uint64_t session) const {
  const auto it = workers_.find(session);
  return it == workers_.end() ? absl::StrCat("session ", session) : it->second;
}

std::string Script::Describe(const v1::CoordinatorMessage& message) const {
  const auto ref = [&](const v1::AttemptRef& r) {
    return absl::StrCat(NameOf(r.job_uid()), "/", r.attempt(), " fence=", r.fence());
  };
  const auto stop_text = [&](const v1::StopTask& s) {
    return absl::StrCat(ShortName(s.reason()), s.checkpoint() ? " checkpoint" : "",
                        " grace=", absl::FormatDuration(FromProto(s.grace())));
  };
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kRegistered: {
      std::string text = absl::StrCat("registered epoch=", message.registered().leader_epoch());
      for (const v1::TaskDecision& decision : message.registered().decisions()) {
        absl::StrAppend(&text, "; ", ref(decision.ref()), " ", decision.keep() ? "KEEP" : "STOP");
        if (decision.has_stop()) absl::StrAppend(&text, " ", stop_text(decision.stop()));
        if (decision.quarantine()) absl::StrAppend(&text, " quarantine");
      }
      return text;
    }
    case v1::CoordinatorMessage::kAssign: {
      std::vector<std::string> ranks;
      for (const v1::RankAssignment& rank : message.assign().ranks()) {
        ranks.push_back(absl::StrCat(rank.rank(), "@", rank.slot()));
      }
      std::string text = absl::StrCat("assign ", ref(message.assign().ref()), " world=", message.assign().world_size(),
                                      " ranks=", absl::StrJoin(ranks, ","));
      if (message.assign().follows_failure()) absl::StrAppend(&text, " recovers");
      if (message.assign().reached_step() > 0) absl::StrAppend(&text, " reached=", message.assign().reached_step());
      if (message.assign().checkpoints_size() > 0) {
        absl::StrAppend(&text, " resume=", message.assign().checkpoints(0).step());
      }
      for (const v1::ResolvedArtifact& artifact : message.assign().artifacts()) {
        absl::StrAppend(&text, " ", artifact.ref().job(), ":", artifact.ref().artifact(), "=", artifact.path());
      }
      return text;
    }
    case v1::CoordinatorMessage::kStart: {
      std::vector<std::string> ranks;
      for (const v1::RankAddress& rank : message.start().start().ranks()) {
        ranks.push_back(absl::StrCat(rank.rank(), "=", rank.comm_address()));
      }
      return absl::StrCat("start ", ref(message.start().ref()), " ", absl::StrJoin(ranks, " "));
    }
    case v1::CoordinatorMessage::kStop:
      return absl::StrCat("stop ", ref(message.stop().ref()), " ", stop_text(message.stop()));
    case v1::CoordinatorMessage::kTrialsAck: {
      const v1::TrialOutcomes& outcomes = message.trials_ack().outcomes();
      std::string text = absl::StrCat("trials ", ref(message.trials_ack().ref()), " g", outcomes.generation());
      if (outcomes.code() != 0) {
        return absl::StrCat(text, " ", CodeName(static_cast<absl::StatusCode>(outcomes.code())), " ",
                            outcomes.message());
      }
      for (const v1::TrialOutcome& outcome : outcomes.outcomes()) {
        absl::StrAppend(&text, " ", outcome.index(), "=", ShortName(outcome.state()));
      }
      if (!outcomes.state().empty()) absl::StrAppend(&text, " state=", outcomes.state());
      return absl::StrCat(text, outcomes.done() ? " done" : "");
    }
    case v1::CoordinatorMessage::kReportAck:
      return "";
    case v1::CoordinatorMessage::kCheckpointAck:
      return absl::StrCat("checkpoint step=", message.checkpoint_ack().step(), " ",
                          CodeName(static_cast<absl::StatusCode>(message.checkpoint_ack().code())), " ",
                          message.checkpoint_ack().message());
    default:
      return message.ShortDebugString();
  }
}

void Script::Finish(Effects* effects, std::string* trace) {
  records_.Commit(effects->writes);
  for (const Transition& change : effects->transitions) {
    absl::StrAppend(trace, ShortName(change.from), " -> ", ShortName(change.to), " (", change.reason, ")\n");
  }
  for (const AttemptEnd& end : effects->attempt_ends) {
    absl::StrAppend(trace, "attempt ", ShortName(end.state), " ", ShortName(end.failure_class), "\n");
  }
  for (const Push& push : effects->pushes) {
    const std::string text = Describe(push.message);
    if (!text.empty()) absl::StrAppend(trace, WorkerOf(push.session), " <- ", text, "\n");
  }
  for (const CloseSession& close : effects->closes) {
    absl::StrAppend(trace, WorkerOf(close.session), " closed: ", CodeName(close.status.code()), " ",
                    std::string(close.status.message()), "\n");
    sessions_.erase(WorkerOf(close.session));
  }
  for (const RecoveryTime& part : effects->recovery_times) {
    const char* const names[] = {"detect", "stop", "place", "start", "first step"};
    absl::StrAppend(trace, "recovery: ", names[static_cast<int>(part.phase)], " ", Text(part.time), "\n");
  }
  if (effects->lease_expirations > 0) absl::StrAppend(trace, "leases expired: ", effects->lease_expirations, "\n");
  if (effects->invariant_violations > 0) {
    absl::StrAppend(trace, "invariant violations: ", effects->invariant_violations, "\n");
  }
  *effects = Effects();
}

void Script::Advance(absl::Duration by, std::string* trace) {
  for (absl::Duration done; done < by; done += kTick) {
    now_.wall += kTick;
    now_.mono += kTick;
    for (const auto& [worker, session] : sessions_) {
      if (!silent_.contains(worker)) core_->Heartbeat(session, now_);
    }
    Effects effects;
    core_->Tick(now_, &effects);
    core_->Schedule(now_, &effects);
    std::string events;
    Finish(&effects, &events);
    if (!events.empty()) absl::StrAppend(trace, "after ", absl::FormatDuration(done + kTick), ":\n", events);
  }
}

v1::TaskReport Script::ReportOf(const std::string& worker, const std::string& name, int attempt, v1::TaskState state) {
  v1::TaskReport report;
  report.set_state(state);
  report.set_sequence(++sequence_);
  report.set_host_address("host-" + worker);
  const auto uid = core_->Find("", name);
  report.mutable_ref()->set_job_uid(uid.ok() ? *uid : name);
  if (!uid.ok()) {  // a job that nobody knows
    report.mutable_ref()->set_attempt(1);
    report.add_ranks()->set_state(state);
    return report;
  }
  const v1::Job& job = core_->Record(*uid)->job();
  for (const v1::Attempt& a : job.attempts()) {
    if (attempt != 0 && a.number() != attempt) continue;
    report.mutable_ref()->set_attempt(a.number());
    report.mutable_ref()->set_fence(a.fence());
    report.clear_ranks();
    for (const v1::RankPlace& place : a.places()) {
      if (place.worker_id() != worker) continue;
      v1::RankStatus& rank = *report.add_ranks();
      rank.set_rank(place.rank());
      rank.set_slot(place.slot());
      rank.set_state(state);
      rank.set_comm_address(absl::StrCat(worker, place.slot()));
    }
  }
  return report;
}

std::string Script::Show(const std::string& name) const {
  const v1::Job job = core_->View(UidOf(name), now_);
  std::string text = absl::StrCat(ShortName(job.state()));
  if (job.stop_reason() != 0) absl::StrAppend(&text, " ", ShortName(job.stop_reason()));
  absl::StrAppend(&text, " step=", job.committed_step());
  if (job.queue_position() > 0) absl::StrAppend(&text, " position=", job.queue_position());
  if (job.has_pending()) {
    absl::StrAppend(&text, " ", ShortName(job.pending().code()), ": ", job.pending().message());
  }
  if (job.has_exit()) {
    absl::StrAppend(&text, " exit ", ShortName(job.exit().failure_class()), " ", job.exit().reason());
    if (!job.exit().message().empty()) absl::StrAppend(&text, ": ", job.exit().message());
  }
  absl::StrAppend(&text, "\n");
  for (const v1::Attempt& attempt : job.attempts()) {
    std::vector<std::string> places;
    for (const v1::RankPlace& place : attempt.places()) {
      places.push_back(absl::StrCat(place.rank(), ":", place.worker_id(), "@", place.slot()));
    }
    absl::StrAppend(&text, "  attempt ", attempt.number(), " fence=", attempt.fence(), " ", ShortName(attempt.state()),
                    " ", absl::StrJoin(places, " "));
    if (attempt.has_exit()) {
      absl::StrAppend(&text, " exit ", ShortName(attempt.exit().failure_class()), " ", attempt.exit().reason(),
                      " rank=", attempt.exit().rank());
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

std::string Script::ShowTrials(const std::string& name) const {
  std::string text;
  const v1::Job job = core_->View(UidOf(name), now_);
  for (const v1::GenerationSummary& generation : job.generations()) {
    absl::StrAppend(&text, "g", generation.number(), " \"", generation.label(), "\" total=", generation.total_count(),
                    " waiting=", generation.waiting_count(), " running=", generation.running_count(),
                    " succeeded=", generation.succeeded_count(), " failed=", generation.failed_count(),
                    generation.has_end_time() ? " ended" : "", "\n");
  }
  return text;
}

// Word: "c:a,b" is job c, which comes after a and b.
void Script::SubmitBatch(const Words& words, Effects* effects, std::string* trace, absl::Status* status) {
  v1::SubmitBatchRequest request;
  request.set_request_id(words.Get("request"));
  request.set_validate_only(words.Has("check"));
  std::vector<std::string> uids;
  for (size_t i = 1; i < words.plain.size(); ++i) {
    if (words.plain[i] == "check") continue;
    const std::vector<std::string> parts = absl::StrSplit(words.plain[i], ':');
    *request.add_specs() = SpecOf(Words(absl::StrCat("submit ", parts[0])));
    const std::vector<std::string> others = absl::StrSplit(parts.size() > 1 ? parts[1] : "", ',', absl::SkipEmpty());
    for (const std::string& other : others) {
      request.mutable_specs(request.specs_size() - 1)->add_depends_on()->set_job(other);
    }
    uids.push_back(absl::StrCat("uid-", ++last_job_));
  }
  const auto result = core_->SubmitBatch(request, uids, now_, effects);
  *status = result.status();
  if (!result.ok()) return;
  if (result->deduplicated) absl::StrAppend(trace, "deduplicated: ", NameOf(result->uids.front()), "\n");
  for (const v1::Job& job : result->validated) {
    absl::StrAppend(trace, "valid: ", job.name(), " ", job.pending().message(), "\n");
  }
}

void Script::RunTrials(const Words& words, uint64_t session, Effects* effects) {
  v1::RunTrials message;
  *message.mutable_ref() =
      ReportOf(words.plain.at(1), words.plain.at(2), static_cast<int>(words.Int("attempt", 0)), v1::TASK_STATE_RUNNING)
          .ref();
  v1::TrialGeneration& generation = *message.mutable_generation();
  generation.set_number(words.Int("number", 1));
  generation.set_label(absl::StrCat("generation ", generation.number()));
  generation.set_state(absl::StrCat("before-", generation.number()));
  generation.set_max_parallel(static_cast<int32_t>(words.Int("max_parallel", 0)));
  for (int i = 0; i < words.Int("count", 1); ++i) {
    v1::JobSpec& spec = *generation.add_specs();
    spec = SpecOf(Words("submit"));
    spec.mutable_training()->set_steps(words.Int("steps", 10));
    if (words.named.contains("seed")) spec.set_seed(static_cast<uint64_t>(words.Int("seed", 0)));
    if (words.Get("kind") == "driver") spec.mutable_prune_search();
    if (words.named.contains("after")) spec.add_depends_on()->set_job(words.Get("after"));
  }
  const std::vector<std::string> odd = absl::StrSplit(words.Get("steps_at"), ',', absl::SkipEmpty());
  if (odd.size() == 2) {
    int index = 0, steps = 0;
    TY_CHECK(absl::SimpleAtoi(odd[0], &index) && absl::SimpleAtoi(odd[1], &steps));
    generation.mutable_specs(index)->mutable_training()->set_steps(steps);
  }
  core_->RunTrials(session, message, now_, effects);
}

std::string Script::ShowWorkers() const {
  std::string text;
  const v1::ListWorkersResponse response = core_->Workers();
  for (const v1::WorkerInfo& worker : response.workers()) {
    absl::StrAppend(&text, worker.worker_id(), " ", ShortName(worker.state()));
    for (const v1::SlotInfo& slot : worker.slots()) {
      absl::StrAppend(&text, " ", slot.index(), ":", ShortName(slot.state()));
      if (slot.has_gpu()) absl::StrAppend(&text, "@", slot.gpu().uuid());
      if (!slot.health_message().empty()) absl::StrAppend(&text, "(", slot.health_message(), ")");
      if (!slot.job_name().empty()) absl::StrAppend(&text, "=", slot.job_name(), "#", slot.rank());
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

std::string Script::Run(const std::string& line) {
  const Words words(line);
  const std::string& command = words.plain.at(0);
  const std::string subject = words.plain.size() > 1 ? words.plain[1] : "";
  const std::string object = words.plain.size() > 2 ? words.plain[2] : "";
  const int attempt = static_cast<int>(words.Int("attempt", 0));
  const auto session = [&] {
    const auto it = sessions_.find(subject);
    return it == sessions_.end() ? 0 : it->second;
  };
  std::string trace;
  Effects effects;
  absl::Status status;

  if (command == "submit") {
    v1::SubmitRequest request;
    *request.mutable_spec() = SpecOf(words);
    request.set_request_id(words.Get("request"));
    const auto result = core_->Submit(request, absl::StrCat("uid-", ++last_job_), now_, &effects);
    status = result.status();
    if (result.ok() && result->deduplicated) absl::StrAppend(&trace, "deduplicated: ", NameOf(result->uid), "\n");
  } else if (command == "cancel" || command == "suspend" || command == "resume") {
    v1::JobActionRequest request;
    request.set_job(subject);
    request.set_request_id(words.Get("request"));
    status = (command == "cancel"    ? core_->Cancel(request, now_, &effects)
              : command == "suspend" ? core_->Suspend(request, now_, &effects)
                                     : core_->Resume(request, now_, &effects))
                 .status();
  } else if (command == "register") {
    v1::Register message;
    message.set_worker_id(subject);
    starts_[subject] = words.Int("start", starts_.contains(subject) ? starts_[subject] : 1);
    message.set_start_count(starts_[subject]);
    message.set_incarnation(words.Get("incarnation", absl::StrCat("start-", starts_[subject])));
    message.set_host("host-" + subject);
    message.set_max_fence(static_cast<uint64_t>(words.Int("fence", 0)));
    message.set_max_leader_epoch(static_cast<uint64_t>(words.Int("epoch", 0)));
    const int64_t slots = words.Int("slots", 1);
    const int64_t gpus = words.Int("gpus", 0);
    for (int i = 0; i < slots + gpus + words.Int("drivers", 0); ++i) {
      v1::WorkerSlot& slot = *message.add_slots();
      slot.set_index(i);
      slot.set_type(i < slots ? v1::SLOT_TYPE_CPU : i < slots + gpus ? v1::SLOT_TYPE_GPU : v1::SLOT_TYPE_DRIVER);
      slot.set_healthy(true);
      if (slot.type() == v1::SLOT_TYPE_GPU) slot.mutable_gpu()->set_uuid(absl::StrCat("GPU-", subject, "-", i));
    }
    const std::vector<std::string> tasks = absl::StrSplit(words.Get("tasks"), ',', absl::SkipEmpty());
    for (const std::string& task : tasks) {
      const std::vector<std::string> fields = absl::StrSplit(task, '/');
      int number = 0;
      TY_CHECK(absl::SimpleAtoi(fields.at(1), &number));
      *message.add_tasks() = ReportOf(subject, fields.at(0), number, TaskStateOf(fields.at(2)));
    }
    workers_[++last_session_] = subject;
    status = core_->Register(last_session_, message, now_, &effects);
    silent_.erase(subject);
    if (status.ok()) {
      Finish(&effects, &trace);
      sessions_[subject] = last_session_;
    }
  } else if (command == "disconnect") {
    core_->Disconnect(session());
    sessions_.erase(subject);
  } else if (command == "heartbeat") {
    if (!core_->Heartbeat(session(), now_)) trace = "refused\n";
  } else if (command == "silence") {
    silent_.insert(subject);
  } else if (command == "report") {
    v1::TaskReport report = ReportOf(subject, object, attempt, TaskStateOf(words.plain.at(3)));
    for (v1::RankStatus& rank : *report.mutable_ranks()) rank.set_restored_step(words.Int("restored", 0));
    core_->Report(session(), report, now_, &effects);
  } else if (command == "exit") {
    v1::TaskReport report = ReportOf(subject, object, attempt, v1::TASK_STATE_EXITED);
    const int64_t only = words.Int("rank", -1);
    absl::Duration after;
    TY_CHECK(absl::ParseDuration(words.Get("after", "0s"), &after));
    for (v1::RankStatus& rank : *report.mutable_ranks()) {
      if (only >= 0 && rank.rank() != only) {
        rank.set_state(v1::TASK_STATE_RUNNING);
        report.set_state(v1::TASK_STATE_RUNNING);
        continue;
      }
      rank.set_succeeded(words.Has("success"));
      v1::ExitRecord& exit = *rank.mutable_exit();
      *exit.mutable_time() = ToProto(now_.wall + after);
      if (words.named.contains("code")) exit.set_exit_code(static_cast<int>(words.Int("code", 0)));
      if (words.named.contains("signal")) exit.set_signal(static_cast<int>(words.Int("signal", 0)));
      if (words.named.contains("class")) {
        v1::FailureClass value;
        TY_CHECK(v1::FailureClass_Parse("FAILURE_CLASS_" + words.Get("class"), &value));
        exit.set_failure_class(value);
      }
    }
    if (words.named.contains("artifact")) {
      v1::Artifact& artifact = *report.mutable_result()->add_artifacts();
      artifact.set_name(words.Get("artifact"));
      artifact.set_path(absl::StrCat("jobs/", object, "/", artifact.name()));
    }
    core_->Report(session(), report, now_, &effects);
  } else if (command == "batch") {
    SubmitBatch(words, &effects, &trace, &status);
  } else if (command == "trials") {
    RunTrials(words, session(), &effects);
  } else if (command == "trials_of") {
    return ShowTrials(subject);
  } else if (command == "commit") {
    v1::CommitCheckpoint message;
    *message.mutable_ref() = ReportOf(subject, object, attempt, v1::TASK_STATE_RUNNING).ref();
    message.mutable_manifest()->set_step(words.Int("step", 1));
    message.mutable_manifest()->set_directory(absl::StrCat("fence-", message.ref().fence()));
    core_->CommitCheckpoint(session(), message, now_, &effects);
  } else if (command == "progress") {
    v1::ProgressReport report;
    *report.mutable_ref() = ReportOf(subject, object, attempt, v1::TASK_STATE_RUNNING).ref();
    report.mutable_progress()->set_step(words.Int("step", 1));
    core_->Progress(session(), report, now_, &effects);
  } else if (command == "forget") {
    status = core_->ForgetWorker(subject, now_, &effects);
  } else if (command == "health") {
    v1::SlotHealth message;
    v1::WorkerSlot& slot = *message.add_slots();
    slot.set_index(static_cast<int>(words.Int("slot", 0)));
    slot.set_healthy(words.Has("ok"));
    slot.set_health_message(words.Get("why"));
    core_->SetSlotHealth(session(), message, now_, &effects);
  } else if (command == "time" || command == "wall") {
    absl::Duration by;
    TY_CHECK(absl::ParseDuration(subject, &by));
    if (command == "time") {
      Advance(by, &trace);
    } else {
      now_.wall += by;
    }
  } else if (command == "restart") {
    core_ = std::make_unique<Core>(timing_, records_.Start(), now_);
    sessions_.clear();
  } else if (command == "show") {
    return Show(subject);
  } else if (command == "workers") {
    return ShowWorkers();
  } else {
    TY_CHECK(command == "list");
    for (const std::string& uid : core_->Uids()) {
      absl::StrAppend(&trace, NameOf(uid), " ", ShortName(core_->Record(uid)->job().state()), "\n");
    }
    return trace;
  }
  if (!status.ok()) {
    absl::StrAppend(&trace, "error ", CodeName(status.code()), " ", GetErrorReason(status), ": ",
                    std::string(status.message()), "\n");
  }
  core_->Schedule(now_, &effects);
  Finish(&effects, &trace);
  return trace;
}

}  // namespace trainyard::coordinator
