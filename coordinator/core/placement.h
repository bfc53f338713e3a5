// Puts a gang on free slots, all ranks or none. A pure function: the same snapshot gives the same places (CP-43).
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "proto/v1/job.pb.h"

namespace trainyard::coordinator {

struct FreeWorker {
  std::string worker_id;
  std::string host;
  std::vector<int> free_slots;  // of the wanted type, ascending
};

struct PlacementRequest {
  int ranks = 1;
  int slots_per_worker = 0;  // most ranks on one worker; 0: as many as fit
  // Named in INFRA failures of the job: used only if the gang does not fit without them (CP-38).
  std::set<std::string> avoided_workers;
};

// One place a rank, in rank order; the ranks of a worker are neighbours. Takes the one worker that the gang fills most
// tightly, else as few workers as possible, emptiest first; ties go to the smaller worker_id.
std::optional<std::vector<v1::RankPlace>> Place(const PlacementRequest& request,
                                                const std::vector<FreeWorker>& workers);

}  // namespace trainyard::coordinator
