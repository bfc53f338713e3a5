#include "worker/comm/nccl/data_transport.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/comm/nccl/nccl_communicator.h"
#include "worker/comm/nccl/nccl_link.h"

namespace trainyard::comm {

absl::Status ChooseDataTransport(const DataTransportOptions& options, Communicators* communicators) {
  // An emulated device's memory is the host's own, so gloo serves it.
  if (options.device != kernels::Device::kCuda || !HasNccl() || communicators->data->size() == 1) {
    return absl::OkStatus();
  }
  const std::string tag =
      absl::StrCat("job ", options.tag.job_uid, " attempt ", options.tag.attempt, " fence ", options.tag.fence);
  TY_ASSIGN_OR_RETURN(std::unique_ptr<NcclLink> link, ConnectNccl(*communicators->data, tag, options.connect_timeout));
  communicators->data =
      std::make_unique<NcclCommunicator>(std::move(link), std::move(communicators->data), options.timeout);
  return absl::OkStatus();
}

}  // namespace trainyard::comm
