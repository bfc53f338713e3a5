// Trials: jobs that a running job asks for (CP-14, I23).
//
// A generation is one commit: its record and all of its jobs, before any of them is placed. Uids follow from (parent,
// generation, index), so nothing is ever made twice; outcomes are read from the trials' own records, which end once and
// stay as long as the parent does, so nothing is lost. What the coordinator remembers beside its store is only which
// session has been told everything so far: after any break the worker asks again, and is told everything again.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/status_macros.h"
#include "coordinator/core/core.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "coordinator/core/trial_names.h"
#include "proto/rpc/error_details.h"
#include "proto/spec/field_errors.h"
#include "proto/spec/references.h"

namespace trainyard::coordinator {
namespace {

constexpr int kMaxTrials = 10'000;
constexpr size_t kMaxSpecBytes = 1 << 20;
constexpr size_t kMaxStateBytes = 16 << 20;
constexpr size_t kMaxLabelBytes = 256;
constexpr size_t kMaxProblems = 32;          // named in a refusal
constexpr int kMaxSummaries = 1000;          // in a job's view
constexpr size_t kOutcomeBytes = 512 << 10;  // of one message, unless one outcome alone has more

std::string DigestOfSpecs(const v1::TrialGeneration& asked) {
  std::string digests;
  for (const v1::JobSpec& spec : asked.specs()) absl::StrAppend(&digests, spec::RequestDigest(spec));
  return DigestOf(digests);
}

// Is the job stopping, never to go on?
bool IsStoppingForGood(const v1::Job& job) {
  return job.state() == v1::JOB_STATE_STOPPING &&
         (job.stop_reason() == v1::STOP_REASON_CANCEL || job.stop_reason() == v1::STOP_REASON_DEADLINE);
}

v1::TrialOutcome OutcomeOf(const v1::Job& trial) {
  v1::TrialOutcome outcome;
  outcome.set_index(trial.trial_index());
  outcome.set_job_uid(trial.uid());
  outcome.set_state(trial.state());
  if (trial.has_result()) *outcome.mutable_result() = trial.result();
  if (trial.has_exit()) *outcome.mutable_exit() = trial.exit();
  return outcome;
}

}  // namespace

void Core::RunTrials(uint64_t session, const v1::RunTrials& message, Now now, Effects* effects) {
  const WorkerEntry* worker = WorkerOf(session);
  if (worker == nullptr) return;
  const absl::StatusOr<Generation*> taken = TakeGeneration(*worker, message, now, effects);
  if (!taken.ok()) {
    v1::CoordinatorMessage reply;
    *reply.mutable_trials_ack()->mutable_ref() = message.ref();
    v1::TrialOutcomes& refusal = *reply.mutable_trials_ack()->mutable_outcomes();
    refusal.set_generation(message.generation().number());
    refusal.set_code(static_cast<int>(taken.status().code()));
    refusal.set_message(std::string(taken.status().message()));
    effects->pushes.push_back({session, std::move(reply)});
    return;
  }
  Finish(now, effects);
  if (*taken == nullptr) return;
  Generation& generation = **taken;
  generation.session = session;
  generation.fence = message.ref().fence();
  std::vector<int> ended;
  for (const std::string& uid : generation.trials) {
    const v1::Job& trial = FindEntry(uid)->job();
    if (IsTerminal(trial.state())) ended.push_back(trial.trial_index());
  }
  PushOutcomes(generation, ended, /*with_state=*/true, effects);
}

// The generation that the message is about, made if it is new; null if there is no answer because the job is about to
// be stopped for good. On an error nothing has changed.
absl::StatusOr<Core::Generation*> Core::TakeGeneration(const WorkerEntry& worker, const v1::RunTrials& message, Now now,
                                                       Effects* effects) {
  const v1::TrialGeneration& asked = message.generation();
  const v1::AttemptRef& ref = message.ref();
  JobEntry* parent = FindEntry(ref.job_uid());
  const TaskRecord* task = IsLive(ref) ? FindTask(*parent, worker.record.worker_id(), ref.fence()) : nullptr;
  const bool has_rank_0 = task != nullptr && std::any_of(task->ranks().begin(), task->ranks().end(),
                                                         [](const v1::RankStatus& rank) { return rank.rank() == 0; });
  if (!has_rank_0) {
    return absl::FailedPreconditionError(absl::StrCat("STALE_FENCE: attempt ", ref.attempt(), " with fence ",
                                                      ref.fence(), " is not live, or rank 0 is not on this worker"));
  }
  if (IsStoppingForGood(parent->job())) return nullptr;

  const std::string digest = DigestOfSpecs(asked);
  const auto family = families_.find(ref.job_uid());
  if (family != families_.end()) {
    const auto known = family->second.find(asked.number());
    if (known != family->second.end()) {
      if (known->second.record.specs_digest() == digest) return &known->second;
      return absl::FailedPreconditionError(
          absl::StrCat("OTHER_SPECS: generation ", asked.number(), " of job ", parent->job().name(),
                       " is committed with other specs than these; a search must ask the same again after a restart"));
    }
    const int64_t newest = family->second.rbegin()->first;
    if (asked.number() < newest) {
      return absl::FailedPreconditionError(
          absl::StrCat("OUT_OF_ORDER: generation ", asked.number(), " is new, but generation ", newest, " exists"));
    }
  }
  return MakeGeneration(*parent, asked, digest, now, effects);
}

absl::StatusOr<Core::Generation*> Core::MakeGeneration(JobEntry& parent, const v1::TrialGeneration& asked,
                                                       const std::string& digest, Now now, Effects* effects) {
  const std::string parent_uid = parent.job().uid();
  TY_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<JobEntry>> trials, MakeTrials(parent, asked, now));
  Generation& generation = families_[parent_uid][asked.number()];
  GenerationRecord& record = generation.record;
  record.set_parent_uid(parent_uid);
  record.set_number(asked.number());
  record.set_specs_digest(digest);
  record.set_state(asked.state());
  record.set_label(asked.label());
  record.set_count(asked.specs_size());
  record.set_max_parallel(asked.max_parallel());
  *record.mutable_create_time() = ToProto(now.wall);
  effects->writes.push_back(PutGeneration{record});
  ++effects->generations;
  for (std::unique_ptr<JobEntry>& made : trials) {
    made->parent = &parent;
    made->generation = &generation;
    const std::string& uid = made->job().uid();
    effects->writes.push_back(PutTrial{parent_uid, asked.number(), made->job().trial_index(), uid});
    generation.trials.push_back(uid);
    JobEntry& trial = AddEntry(std::move(made), now, effects);
    WatchDependencies(trial);
    JudgeDependencies(trial, now, effects);
  }
  return &generation;
}

// The jobs of a new generation, in no index yet; InvalidArgument names what is wrong with which trial.
absl::StatusOr<std::vector<std::unique_ptr<Core::JobEntry>>> Core::MakeTrials(const JobEntry& parent,
                                                                              const v1::TrialGeneration& asked,
                                                                              Now now) const {
  spec::FieldErrors errors;
  if (asked.number() < 1) errors.Add("number", absl::StrCat(asked.number(), " is not positive"));
  errors.InRange("trials", asked.specs_size(), 1, kMaxTrials);
  if (asked.max_parallel() < 0) errors.Add("max_parallel", absl::StrCat(asked.max_parallel(), " is negative"));
  if (asked.state().size() > kMaxStateBytes) {
    errors.Add("state", absl::StrCat(asked.state().size(), " bytes, at most ", kMaxStateBytes, " allowed"));
  }
  if (asked.label().size() > kMaxLabelBytes) {
    errors.Add("label", absl::StrCat(asked.label().size(), " bytes, at most ", kMaxLabelBytes, " allowed"));
  }
  if (parent.generation != nullptr) errors.Add("", "a trial may not ask for trials");
  TY_RETURN_IF_ERROR(errors.ToStatus());

  const v1::Job& asker = parent.job();
  std::vector<std::unique_ptr<JobEntry>> trials;
  for (int i = 0; i < asked.specs_size(); ++i) {
    if (errors.violations().size() >= kMaxProblems) {
      errors.Add("trials", absl::StrCat("and perhaps more from trial ", i, " on"));
      break;
    }
    spec::FieldErrors problems = errors.In(absl::StrCat("trials[", i, "]"));
    v1::JobSpec spec = asked.specs(i);
    if (spec.ByteSizeLong() > kMaxSpecBytes) {
      problems.Add("", absl::StrCat(spec.ByteSizeLong(), " bytes, at most ", kMaxSpecBytes, " allowed"));
      continue;
    }
    std::string name = TrialName(asker.name(), asker.uid(), asked.number(), i, /*is_taken=*/false);
    if (IsNameTaken(asker.namespace_(), name)) {
      name = TrialName(asker.name(), asker.uid(), asked.number(), i, /*is_taken=*/true);
    }
    spec.set_name(name);
    spec.set_namespace_(asker.namespace_());
    spec.set_queue(asker.queue());
    spec.set_priority(asker.priority());
    if (!spec.has_seed()) spec.set_seed(TrialSeed(parent.options.seed.value_or(0), asked.number(), i));
    absl::StatusOr<spec::JobOptions> options = spec::ParseJob(spec);
    if (!options.ok()) {
      for (const FieldViolation& problem : GetFieldViolations(options.status())) {
        problems.Add(problem.path, problem.text);
      }
      continue;
    }
    if (spec::IsDriver(options->kind)) {
      problems.Add("", absl::StrCat("kind ", spec::KindName(spec), " asks for trials itself, which a trial may not"));
    }
    if (options->suspend) problems.Add("suspend", "a trial that waits for a user would stop its parent");
    TY_RETURN_IF_ERROR(CheckNameIsFree(*options));
    std::unique_ptr<JobEntry> trial =
        MakeEntry(spec, *std::move(options), TrialUid(asker.uid(), asked.number(), i), now);
    trial->job().set_parent_uid(asker.uid());
    trial->job().set_generation(asked.number());
    trial->job().set_trial_index(i);
    ResolveDependencies(*trial, {}, problems);
    for (const DependencyRecord& dependency : trial->record.dependencies()) {
      if (dependency.job_uid() != asker.uid()) continue;
      problems.Add(spec::FieldOfDependency(trial->job().spec(), trial->options, dependency.name()),
                   "the parent, which itself waits for the trial");
    }
    trials.push_back(std::move(trial));
  }
  TY_RETURN_IF_ERROR(errors.ToStatus());
  return trials;
}

// To the attempt that asked, if it is still the one that runs, in the session that it asked in. Without `indices` one
// message still says that the generation is committed, or that it has ended.
void Core::PushOutcomes(const Generation& generation, const std::vector<int>& indices, bool with_state,
                        Effects* effects) {
  const JobEntry& parent = *FindEntry(generation.record.parent_uid());
  const v1::Attempt* attempt = LiveAttempt(parent);
  const bool listens = generation.session != 0 && sessions_.contains(generation.session) && attempt != nullptr &&
                       attempt->fence() == generation.fence && !IsStoppingForGood(parent.job());
  if (!listens) return;
  v1::CoordinatorMessage message;
  const auto begin = [&] {
    message.Clear();
    v1::TrialsAck& ack = *message.mutable_trials_ack();
    ack.mutable_ref()->set_job_uid(parent.job().uid());
    ack.mutable_ref()->set_attempt(attempt->number());
    ack.mutable_ref()->set_fence(attempt->fence());
    ack.mutable_outcomes()->set_generation(generation.record.number());
  };
  begin();
  if (with_state) message.mutable_trials_ack()->mutable_outcomes()->set_state(generation.record.state());
  size_t bytes = 0;
  for (const int index : indices) {
    v1::TrialOutcome outcome = OutcomeOf(FindEntry(generation.trials.at(index))->job());
    bytes += outcome.ByteSizeLong();
    if (bytes > kOutcomeBytes && message.trials_ack().outcomes().outcomes_size() > 0) {
      effects->pushes.push_back({generation.session, message});
      begin();
      bytes = outcome.ByteSizeLong();
    }
    *message.mutable_trials_ack()->mutable_outcomes()->add_outcomes() = std::move(outcome);
  }
  message.mutable_trials_ack()->mutable_outcomes()->set_done(generation.has_ended());
  effects->pushes.push_back({generation.session, std::move(message)});
}

// All that have not ended, if the parent has, or is about to for good.
void Core::CancelTrials(const JobEntry& parent, Now now, Effects* effects) {
  const auto family = families_.find(parent.job().uid());
  if (family == families_.end()) return;
  const std::string message =
      absl::StrCat("cancelled with its parent ", parent.job().name(), ", which is ",
                   IsTerminal(parent.state()) ? ShortName(parent.state()) : std::string("being cancelled"));
  for (const auto& [number, generation] : family->second) {
    if (generation.has_ended()) continue;
    for (const std::string& uid : generation.trials) CancelBecause(*FindEntry(uid), message, now, effects);
  }
}

bool Core::IsHeld(const JobEntry& entry, int placed) {
  const v1::JobState state = entry.parent->state();
  if (state == v1::JOB_STATE_SUSPENDED || state == v1::JOB_STATE_STOPPING || IsTerminal(state)) return true;
  const int limit = entry.generation->record.max_parallel();
  return limit > 0 && entry.generation->running + placed >= limit;
}

std::string Core::HoldText(const JobEntry& entry) {
  const v1::JobState state = entry.parent->state();
  if (state != v1::JOB_STATE_QUEUED && state != v1::JOB_STATE_ADMITTED && state != v1::JOB_STATE_RUNNING &&
      state != v1::JOB_STATE_RECOVERING) {
    return absl::StrCat("its parent ", entry.parent->job().name(), " is ", ShortName(state));
  }
  return absl::StrCat(entry.generation->running, " trials of generation ", entry.generation->record.number(),
                      " run, as many as max_parallel allows; ", entry.generation->waiting, " wait");
}

// Keeps the counts of a trial's generation; `by` is 1 when the trial enters its state, -1 when it leaves it.
void Core::CountTrial(const JobEntry& entry, int by) const {
  if (entry.generation == nullptr) return;
  Generation& generation = *entry.generation;
  switch (entry.state()) {
    case v1::JOB_STATE_ADMITTED:
    case v1::JOB_STATE_RUNNING:
    case v1::JOB_STATE_STOPPING:
      generation.running += by;
      break;
    case v1::JOB_STATE_SUCCEEDED:
      generation.succeeded += by;
      break;
    case v1::JOB_STATE_FAILED:
    case v1::JOB_STATE_CANCELLED:
      generation.failed += by;
      break;
    default:
      generation.waiting += by;
  }
  if (IsTerminal(entry.state())) {
    generation.last_end = std::max(generation.last_end, FromProto(entry.job().end_time()));
  }
}

void Core::AddGenerations(v1::Job* job) const {
  const auto family = families_.find(job->uid());
  if (family == families_.end()) return;
  auto it = family->second.begin();
  std::advance(it, std::max<int64_t>(0, static_cast<int64_t>(family->second.size()) - kMaxSummaries));
  for (; it != family->second.end(); ++it) {
    const Generation& generation = it->second;
    v1::GenerationSummary& summary = *job->add_generations();
    summary.set_number(generation.record.number());
    summary.set_label(generation.record.label());
    summary.set_total_count(generation.record.count());
    summary.set_waiting_count(generation.waiting);
    summary.set_running_count(generation.running);
    summary.set_succeeded_count(generation.succeeded);
    summary.set_failed_count(generation.failed);
    *summary.mutable_create_time() = generation.record.create_time();
    if (generation.has_ended()) *summary.mutable_end_time() = ToProto(generation.last_end);
  }
}

}  // namespace trainyard::coordinator
