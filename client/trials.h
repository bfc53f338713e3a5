// How the trials of a job are told to people.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "client/commands.h"
#include "proto/v1/job.pb.h"

namespace trainyard::client {

// "generation 3 (stage 2): 12 of 16 trials done, 3 running, 1 failed" for the newest; empty if it asked for none.
std::string NewestGenerationText(const v1::Job& job);

// "4 generations of 64 trials: 50 done, 3 running, 1 failed"; empty if it asked for none.
std::string AllGenerationsText(const v1::Job& job);

// Trials that have not ended.
int OpenTrials(const v1::Job& job);

// A line a generation.
std::string GenerationsTable(const v1::Job& job, absl::Time now);

// `get JOB --trials [--generation N]`.
int ShowTrials(const v1::Job& job, int64_t generation, Context& context);

}  // namespace trainyard::client
