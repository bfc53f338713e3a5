// Which GPUs a daemon offers. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/daemon/gpu/facts.h"

namespace trainyard::daemon {

struct GpuSelection {
  std::vector<GpuIdentity> gpus;     // by index
  std::vector<std::string> skipped;  // one line for each GPU that is there and not offered, with the reason
};

// `wanted`: "none"; "auto" or "all": every GPU but those cut by MIG, which are skipped; or a list of indices and UUIDs,
// separated by commas. InvalidArgument names the word of the list that is no GPU of `present`, comes twice, or is cut
// by MIG. With `expected` > 0, places for missing GPUs are added to "auto" and "all", without UUID and with an error,
// so that a node on which GPUs have disappeared shows it.
absl::StatusOr<GpuSelection> SelectGpus(absl::string_view wanted, const std::vector<GpuIdentity>& present,
                                        int expected);

}  // namespace trainyard::daemon
