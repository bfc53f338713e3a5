// Which budget a rank's end counts against (control-plane.md, section 5).
#pragma once

#include <vector>

#include "proto/spec/job_options.h"
#include "proto/v1/job.pb.h"

namespace trainyard::coordinator {

// Class of a rank that ended without success and was not asked to stop. In this order: the job's exit_policy by exit
// code; the class that the rank or its daemon reported; a signal from outside (KILL, TERM, HUP, INT, BUS) is INFRA,
// any other signal a bug of the program and so USER; any exit code else is USER.
v1::FailureClass Classify(const v1::ExitRecord& exit, const spec::ExitPolicyOptions& policy);

// Of the ends of an attempt's ranks the one that explains it (CP-34): a PERMANENT one before all others, since no
// peer's death causes exit 65; then the earliest; CONTROL only if there is nothing else. `exits` must not be empty.
const v1::ExitRecord& RootCause(const std::vector<v1::ExitRecord>& exits);

}  // namespace trainyard::coordinator
