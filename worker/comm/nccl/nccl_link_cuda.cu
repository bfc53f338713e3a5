// NCCL in its non-blocking mode: every call returns at once, and Poll asks how far things are. That is what makes
// timeouts and aborts possible.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "worker/comm/nccl/nccl_link.h"

namespace trainyard::comm {
namespace {

absl::Status CudaStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(call, ": ", cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

// `comm` may be null.
absl::Status NcclStatus(ncclResult_t result, const char* call, ncclComm_t comm) {
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  const char* const detail = ncclGetLastError(comm);
  return absl::UnavailableError(absl::StrCat(call, ": ", ncclGetErrorString(result),
                                             detail == nullptr || *detail == '\0' ? "" : ": ",
                                             detail == nullptr ? "" : detail));
}

class CudaNcclLink final : public NcclLink {
 public:
  CudaNcclLink(int rank, int size) : rank_(rank), size_(size), stream_(kernels::Device::kCuda, 1) {
    const absl::Status status =
        CudaStatus(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    TY_CHECK_OK(status);
  }
  ~CudaNcclLink() override {
    Abort();
    (void)cudaEventDestroy(event_);
  }

  absl::Status StartInit(const ncclUniqueId& id) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    state_ = State::kWaiting;
    return NcclStatus(ncclCommInitRankConfig(&comm_, size_, id, rank_, &config), "ncclCommInitRankConfig", nullptr);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  kernels::Stream& stream() override { return stream_; }

  bool Reaches(const void* data) const override {
    cudaPointerAttributes attributes = {};
    if (cudaPointerGetAttributes(&attributes, data) != cudaSuccess) {
      (void)cudaGetLastError();  // the question is not an error of the device
      return false;
    }
    return attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  }

  absl::Status Start(const std::vector<NcclTransfer>& sends, const std::vector<NcclTransfer>& receives) override {
    if (comm_ == nullptr) return absl::FailedPreconditionError("the NCCL communicator has ended");
    TY_RETURN_IF_ERROR(NcclStatus(ncclGroupStart(), "ncclGroupStart", comm_));
    // A group that was begun is ended in any case; the first error counts.
    absl::Status status;
    const auto note = [&](ncclResult_t result, const char* call) { status.Update(NcclStatus(result, call, comm_)); };
    for (const NcclTransfer& send : sends) {
      note(ncclSend(send.data, static_cast<size_t>(send.bytes), ncclInt8, send.peer, comm_, cuda_stream()), "ncclSend");
    }
    for (const NcclTransfer& receive : receives) {
      note(ncclRecv(receive.data, static_cast<size_t>(receive.bytes), ncclInt8, receive.peer, comm_, cuda_stream()),
           "ncclRecv");
    }
    note(ncclGroupEnd(), "ncclGroupEnd");
    state_ = State::kStarting;
    return status;
  }

  absl::Status StartAllGather(const void* in, void* out, int64_t bytes) override {
    if (comm_ == nullptr) return absl::FailedPreconditionError("the NCCL communicator has ended");
    state_ = State::kStarting;
    return NcclStatus(ncclAllGather(in, out, static_cast<size_t>(bytes), ncclInt8, comm_, cuda_stream()),
                      "ncclAllGather", comm_);
  }

  absl::Status StartFarewell() override {
    if (comm_ == nullptr) return absl::FailedPreconditionError("the NCCL communicator has ended");
    state_ = State::kWaiting;
    return NcclStatus(ncclCommFinalize(comm_), "ncclCommFinalize", comm_);
  }

  absl::StatusOr<NcclProgress> Poll() override {
    if (comm_ == nullptr) return absl::FailedPreconditionError("the NCCL communicator has ended");
    ncclResult_t result = ncclSuccess;
    TY_RETURN_IF_ERROR(NcclStatus(ncclCommGetAsyncError(comm_, &result), "ncclCommGetAsyncError", comm_));
    TY_RETURN_IF_ERROR(NcclStatus(result, "NCCL", comm_));
    switch (state_) {
      case State::kIdle:
        return NcclProgress::kDone;
      case State::kWaiting:
        if (result == ncclInProgress) return NcclProgress::kStarting;
        state_ = State::kIdle;
        return NcclProgress::kDone;
      case State::kStarting:
        // Only now is it on the stream.
        if (result == ncclInProgress) return NcclProgress::kStarting;
        TY_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(event_, cuda_stream()), "cudaEventRecord"));
        state_ = State::kRunning;
        break;
      case State::kRunning:
        break;
    }
    const cudaError_t error = cudaEventQuery(event_);
    if (error == cudaErrorNotReady) return NcclProgress::kRunning;
    TY_RETURN_IF_ERROR(CudaStatus(error, "the communication stream"));
    state_ = State::kIdle;
    return NcclProgress::kDone;
  }

  void Abort() override {
    if (comm_ == nullptr) return;
    (void)ncclCommAbort(std::exchange(comm_, nullptr));  // nothing is left to be told of an error
  }

 private:
  enum class State { kIdle, kWaiting, kStarting, kRunning };

  cudaStream_t cuda_stream() const { return static_cast<cudaStream_t>(stream_.handle()); }

  const int rank_, size_;
  kernels::Stream stream_;
  ncclComm_t comm_ = nullptr;
  cudaEvent_t event_ = nullptr;
  State state_ = State::kIdle;
};

}  // namespace

bool HasNccl() {
  return true;
}

absl::StatusOr<std::unique_ptr<NcclLink>> ConnectNccl(Communicator& lifeline, const std::string& tag,
                                                      absl::Duration timeout) {
  const absl::Duration deadline = RealClock()->Monotonic() + timeout;
  const std::string prefix = absl::StrCat("nccl id of ", tag, ": ");
  const auto where = absl::StrCat("NCCL, rank ", lifeline.rank(), " of ", lifeline.size(), ": ");
  // If rank 0 has no id, the others are told so.
  ncclUniqueId id = {};
  std::string text;
  if (lifeline.rank() == 0) {
    const absl::Status made = NcclStatus(ncclGetUniqueId(&id), "ncclGetUniqueId", nullptr);
    text = made.ok() ? absl::StrCat(prefix, std::string(id.internal, sizeof(id.internal)))
                     : absl::StrCat("rank 0: ", std::string(made.message()));
  }
  TY_ASSIGN_OR_RETURN(text, BroadcastString(lifeline, text, 0));
  if (!absl::StartsWith(text, "nccl id of ")) return absl::UnavailableError(absl::StrCat(where, text));
  if (!absl::StartsWith(text, prefix) || text.size() != prefix.size() + sizeof(id.internal)) {
    return absl::AbortedError(absl::StrCat(where, "rank 0 is of another attempt: '", text.substr(0, text.find(": ")),
                                           "', expected that of ", tag));
  }
  std::copy(text.begin() + static_cast<std::ptrdiff_t>(prefix.size()), text.end(), id.internal);

  auto link = std::make_unique<CudaNcclLink>(lifeline.rank(), lifeline.size());
  absl::Status status = link->StartInit(id);
  while (status.ok()) {
    const absl::StatusOr<NcclProgress> progress = link->Poll();
    if (progress.ok() && *progress == NcclProgress::kDone) return std::unique_ptr<NcclLink>(std::move(link));
    status.Update(progress.status());
    status.Update(lifeline.health());
    if (RealClock()->Monotonic() >= deadline) {
      status.Update(absl::DeadlineExceededError(
          absl::StrCat("not all ranks have joined within ", absl::FormatDuration(timeout))));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return absl::Status(status.code(), absl::StrCat(where, std::string(status.message())));
}

}  // namespace trainyard::comm
