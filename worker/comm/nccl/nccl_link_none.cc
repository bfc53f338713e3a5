// Of programs that are not built for CUDA devices.
#include "worker/comm/nccl/nccl_link.h"

namespace trainyard::comm {

bool HasNccl() {
  return false;
}

absl::StatusOr<std::unique_ptr<NcclLink>> ConnectNccl(Communicator&, const std::string&, absl::Duration) {
  return absl::FailedPreconditionError("this program was built without NCCL; build it with --config=cuda");
}

}  // namespace trainyard::comm
