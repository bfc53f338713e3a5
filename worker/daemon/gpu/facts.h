// What the daemon knows of GPUs: plain data, as the driver told it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace trainyard::daemon {

// What does not change while the driver runs.
struct GpuIdentity {
  int index = 0;     // the driver's number of it, which may change at a reboot
  std::string uuid;  // "GPU-...": its name for good; empty if it did not even tell that
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int64_t memory_bytes = 0;
  int compute_major = 0, compute_minor = 0;
  int minor_number = -1;  // of /dev/nvidia<n>; -1: not told
  bool is_mig = false;    // cut into instances, which we do not offer
  std::string error;      // why the rest is unknown; empty: all was told
};

struct GpuProcess {
  int64_t pid = 0;
  int64_t used_bytes = -1;  // -1: not told
};

// One look at one GPU. What a GPU, or its driver, cannot tell is absent.
struct GpuFacts {
  std::string error;  // it does not answer; the rest is unknown then
  int64_t total_bytes = 0;
  int64_t used_bytes = 0;  // without what the driver keeps for itself, where the driver can tell the two apart
  std::optional<bool> row_remap_failed;
  std::optional<int> recovery_action;  // the driver's advice: 0 none, 1 reset the GPU, 2 reboot, ...
  std::vector<GpuProcess> processes;   // that compute on it
};

// An error that the driver has reported while somebody listened.
struct XidEvent {
  std::string uuid;
  int xid = 0;
};

}  // namespace trainyard::daemon
