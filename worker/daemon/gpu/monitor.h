// Asks the driver on a thread of its own, so that one that hangs does not take the daemon's heartbeats with it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "worker/daemon/gpu/facts.h"
#include "worker/daemon/gpu/nvml.h"

namespace trainyard::daemon {

// One round of probes.
struct GpuSnapshot {
  uint64_t ticket = 0;         // it began after this request, and after all before it
  std::vector<GpuFacts> gpus;  // as in the list that was given to Start
};

class GpuMonitor {
 public:
  // Called on the monitor's thread; must not call the monitor, and may only hand on what they get. XIDs that the driver
  // had told before a round of probes come before its snapshot.
  struct Handlers {
    std::function<void(GpuSnapshot)> on_snapshot;
    std::function<void(XidEvent)> on_xid;
  };

  // Listens for XIDs of `gpus` from its return on; GPUs without a UUID are only reported with their error.
  static std::unique_ptr<GpuMonitor> Start(std::unique_ptr<Nvml> nvml, std::vector<GpuIdentity> gpus,
                                           Handlers handlers);
  // No handler runs after it. Gives a driver that hangs 2 s, then leaves the thread to the end of the process.
  ~GpuMonitor();

  // From any thread: a round of probes, soon. Returns the ticket of the first snapshot that is made after this call.
  uint64_t Probe();

 private:
  struct State;
  explicit GpuMonitor(std::shared_ptr<State> state) : state_(std::move(state)) {}
  static void Loop(const std::shared_ptr<State>& state);

  // Shared with the thread, which outlives this object when the driver hangs.
  const std::shared_ptr<State> state_;
};

// One round on the caller's thread: for the start of a daemon, before it has promised anything to anybody.
std::vector<GpuFacts> ProbeAll(Nvml& nvml, const std::vector<GpuIdentity>& gpus);

}  // namespace trainyard::daemon
