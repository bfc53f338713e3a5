// NVIDIA's management library, opened at run time: the daemon runs on machines without it, and needs no header of it.
//
// One thread at a time may use an object (NVML itself allows more). Calls ask the driver and may hang with it: not for
// the event loop, except before the daemon serves anybody.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/daemon/gpu/facts.h"

namespace trainyard::daemon {

inline constexpr char kNvmlLibrary[] = "libnvidia-ml.so.1";

class Nvml {
 public:
  // Opens `library` (a path, or a name that the loader finds) and starts it.
  //   NotFound            no such library: no driver is installed, or the container was not given it
  //   FailedPrecondition  the driver is not loaded, is of another version than the library, or the library is too old
  //                       or no NVML at all
  //   Unavailable         any other refusal, with NVML's own words
  static absl::StatusOr<std::unique_ptr<Nvml>> Open(const std::string& library = kNvmlLibrary);
  ~Nvml();

  const std::string& driver_version() const { return driver_version_; }

  // All GPUs that the driver lists, by index; one that does not answer has `error`.
  absl::StatusOr<std::vector<GpuIdentity>> List();

  // Never fails: what cannot be had is in GpuFacts::error or absent.
  GpuFacts Probe(const std::string& uuid);

  // From now on WaitForXid hears of this GPU. Unimplemented if the GPU or the driver cannot tell.
  absl::Status Listen(const std::string& uuid);
  // Waits at most `timeout` for the next XID, in the order of the driver. NotFound: none came. Unavailable: cannot wait
  // (nothing is listened to, or the driver refuses).
  absl::StatusOr<XidEvent> WaitForXid(absl::Duration timeout);

 private:
  struct Functions;
  Nvml(void* library, std::unique_ptr<Functions> functions);
  absl::Status StatusOf(int result, const char* what) const;

  void* const library_;
  const std::unique_ptr<Functions> functions_;
  std::string driver_version_;
  void* events_ = nullptr;
};

}  // namespace trainyard::daemon
