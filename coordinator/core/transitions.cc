#include "coordinator/core/transitions.h"

#include <initializer_list>

#include "absl/strings/strip.h"

namespace trainyard::coordinator {
namespace {

using namespace trainyard::v1;  // NOLINT: the tables are lists of its enumerators

template <typename State>
struct Change {
  State from, to;
};

constexpr Change<JobState> kJobChanges[] = {
    {JOB_STATE_QUEUED, JOB_STATE_ADMITTED},      {JOB_STATE_QUEUED, JOB_STATE_SUSPENDED},
    {JOB_STATE_QUEUED, JOB_STATE_CANCELLED},     {JOB_STATE_QUEUED, JOB_STATE_FAILED},
    {JOB_STATE_SUSPENDED, JOB_STATE_QUEUED},     {JOB_STATE_SUSPENDED, JOB_STATE_CANCELLED},
    {JOB_STATE_ADMITTED, JOB_STATE_RUNNING},     {JOB_STATE_ADMITTED, JOB_STATE_RECOVERING},
    {JOB_STATE_ADMITTED, JOB_STATE_STOPPING},    {JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED},
    {JOB_STATE_RUNNING, JOB_STATE_FAILED},       {JOB_STATE_RUNNING, JOB_STATE_RECOVERING},
    {JOB_STATE_RUNNING, JOB_STATE_STOPPING},     {JOB_STATE_RECOVERING, JOB_STATE_ADMITTED},
    {JOB_STATE_RECOVERING, JOB_STATE_FAILED},    {JOB_STATE_RECOVERING, JOB_STATE_STOPPING},
    {JOB_STATE_RECOVERING, JOB_STATE_SUSPENDED}, {JOB_STATE_STOPPING, JOB_STATE_CANCELLED},
    {JOB_STATE_STOPPING, JOB_STATE_SUSPENDED},   {JOB_STATE_STOPPING, JOB_STATE_QUEUED},
    {JOB_STATE_STOPPING, JOB_STATE_FAILED},      {JOB_STATE_STOPPING, JOB_STATE_SUCCEEDED},
};

constexpr Change<AttemptState> kAttemptChanges[] = {
    {ATTEMPT_STATE_RESERVED, ATTEMPT_STATE_PREPARING}, {ATTEMPT_STATE_RESERVED, ATTEMPT_STATE_FAILED},
    {ATTEMPT_STATE_RESERVED, ATTEMPT_STATE_STOPPED},   {ATTEMPT_STATE_RESERVED, ATTEMPT_STATE_LOST},
    {ATTEMPT_STATE_PREPARING, ATTEMPT_STATE_READY},    {ATTEMPT_STATE_PREPARING, ATTEMPT_STATE_FAILED},
    {ATTEMPT_STATE_PREPARING, ATTEMPT_STATE_STOPPED},  {ATTEMPT_STATE_PREPARING, ATTEMPT_STATE_LOST},
    {ATTEMPT_STATE_READY, ATTEMPT_STATE_RUNNING},      {ATTEMPT_STATE_READY, ATTEMPT_STATE_FAILED},
    {ATTEMPT_STATE_READY, ATTEMPT_STATE_STOPPED},      {ATTEMPT_STATE_READY, ATTEMPT_STATE_LOST},
    {ATTEMPT_STATE_RUNNING, ATTEMPT_STATE_DRAINING},   {ATTEMPT_STATE_RUNNING, ATTEMPT_STATE_SUCCEEDED},
    {ATTEMPT_STATE_RUNNING, ATTEMPT_STATE_FAILED},     {ATTEMPT_STATE_RUNNING, ATTEMPT_STATE_STOPPED},
    {ATTEMPT_STATE_RUNNING, ATTEMPT_STATE_LOST},       {ATTEMPT_STATE_DRAINING, ATTEMPT_STATE_SUCCEEDED},
    {ATTEMPT_STATE_DRAINING, ATTEMPT_STATE_FAILED},    {ATTEMPT_STATE_DRAINING, ATTEMPT_STATE_STOPPED},
    {ATTEMPT_STATE_DRAINING, ATTEMPT_STATE_LOST},
};

template <typename State, size_t n>
bool Contains(const Change<State> (&changes)[n], State from, State to) {
  for (const Change<State>& change : changes) {
    if (change.from == from && change.to == to) return true;
  }
  return false;
}

std::string Strip(const std::string& name, const char* prefix) {
  return std::string(absl::StripPrefix(name, prefix));
}

}  // namespace

bool IsTerminal(JobState state) {
  return state == JOB_STATE_SUCCEEDED || state == JOB_STATE_FAILED || state == JOB_STATE_CANCELLED;
}

bool IsTerminal(AttemptState state) {
  return state == ATTEMPT_STATE_SUCCEEDED || state == ATTEMPT_STATE_FAILED || state == ATTEMPT_STATE_STOPPED ||
         state == ATTEMPT_STATE_LOST;
}

bool CanChange(JobState from, JobState to) {
  return Contains(kJobChanges, from, to);
}

bool CanChange(AttemptState from, AttemptState to) {
  return Contains(kAttemptChanges, from, to);
}

// A task only goes forward, and may skip states whose reports were overtaken. EXITED is final; UNKNOWN ("could not be
// killed") still leads to EXITED, by a report of the worker.
bool CanChange(TaskState from, TaskState to) {
  if (from == TASK_STATE_EXITED || to == TASK_STATE_UNSPECIFIED) return false;
  if (from == TASK_STATE_UNKNOWN) return to == TASK_STATE_EXITED;
  return from < to;
}

std::string ShortName(JobState state) {
  return Strip(JobState_Name(state), "JOB_STATE_");
}
std::string ShortName(AttemptState state) {
  return Strip(AttemptState_Name(state), "ATTEMPT_STATE_");
}
std::string ShortName(TaskState state) {
  return Strip(TaskState_Name(state), "TASK_STATE_");
}
std::string ShortName(StopReason reason) {
  return Strip(StopReason_Name(reason), "STOP_REASON_");
}
std::string ShortName(FailureClass failure_class) {
  return Strip(FailureClass_Name(failure_class), "FAILURE_CLASS_");
}
std::string ShortName(PendingReason::Code code) {
  return Strip(PendingReason::Code_Name(code), "CODE_");
}
std::string ShortName(WorkerState state) {
  return Strip(WorkerState_Name(state), "WORKER_STATE_");
}
std::string ShortName(SlotState state) {
  return Strip(SlotState_Name(state), "SLOT_STATE_");
}
std::string ShortName(SlotType type) {
  return Strip(SlotType_Name(type), "SLOT_TYPE_");
}

}  // namespace trainyard::coordinator
