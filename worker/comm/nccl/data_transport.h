// Which transport gradients take: gloo between CPUs, NCCL between GPUs.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/core/device.h"
#include "worker/comm/rendezvous.h"

namespace trainyard::comm {

struct DataTransportOptions {
  CommunicatorTag tag;
  kernels::Device device = kernels::Device::kCpu;  // where gradients are
  absl::Duration connect_timeout = absl::Seconds(60);
  absl::Duration timeout = absl::Minutes(5);  // of one call
};

// After Rendezvous::Connect, on the thread whose current device the rank trains on. Gradients on GPUs: puts NCCL in
// front of `communicators->data`, which stays its lifeline. Otherwise, and with one rank, nothing changes. Collective;
// the control and background communicators stay as they are. Errors as ConnectNccl; then `communicators` is as before.
absl::Status ChooseDataTransport(const DataTransportOptions& options, Communicators* communicators);

}  // namespace trainyard::comm
