// The fatal XIDs of this host's GPUs since its boot, kept on disk: the driver tells of an XID once, to those who
// listen, so a new daemon on the same state folder would take a broken GPU for a good one.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/daemon/gpu/facts.h"

namespace trainyard::daemon {

class FaultLog {
 public:
  // `boot_id` names the host's boot; what an earlier boot has left is forgotten. DataLoss names a file that is none.
  static absl::StatusOr<FaultLog> Open(std::string path, std::string boot_id);

  // Once for each (GPU, XID). In memory in any case; the status is that of the disk.
  absl::Status Add(const XidEvent& event, absl::Time wall);

  std::vector<int> xids(const std::string& uuid) const;

 private:
  FaultLog(std::string path, std::string boot_id) : path_(std::move(path)), boot_id_(std::move(boot_id)) {}

  std::string path_, boot_id_;
  std::map<std::string, std::map<int, absl::Time>> faults_;  // by UUID, then XID
};

// The kernel's name for this boot; empty if it has none.
std::string BootId();

}  // namespace trainyard::daemon
