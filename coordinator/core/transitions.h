// The legal state changes of jobs, attempts and tasks (control-plane.md, section 3). Every change in the core goes
// through these tables; one that is not in them is a bug of ours.
#pragma once

#include <string>

#include "proto/v1/coordinator.pb.h"
#include "proto/v1/job.pb.h"
#include "proto/v1/worker.pb.h"

namespace trainyard::coordinator {

bool IsTerminal(v1::JobState state);
bool IsTerminal(v1::AttemptState state);

// A state does not lead to itself.
bool CanChange(v1::JobState from, v1::JobState to);
bool CanChange(v1::AttemptState from, v1::AttemptState to);
bool CanChange(v1::TaskState from, v1::TaskState to);

// "RUNNING" for JOB_STATE_RUNNING and so on.
std::string ShortName(v1::JobState state);
std::string ShortName(v1::AttemptState state);
std::string ShortName(v1::TaskState state);
std::string ShortName(v1::StopReason reason);
std::string ShortName(v1::FailureClass failure_class);
std::string ShortName(v1::PendingReason::Code code);
std::string ShortName(v1::WorkerState state);
std::string ShortName(v1::SlotState state);
std::string ShortName(v1::SlotType type);

}  // namespace trainyard::coordinator
