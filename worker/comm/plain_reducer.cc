#include "worker/comm/plain_reducer.h"

#include <utility>

#include "base/status_macros.h"
#include "kernels/codec/piece_math.h"

namespace trainyard::comm {
namespace {

using kernels::TensorView;

bool IsOneRun(const std::vector<BucketTensor>& tensors) {
  for (size_t i = 1; i < tensors.size(); ++i) {
    const TensorView& before = tensors[i - 1].gradient;
    if (static_cast<const char*>(before.data()) + before.bytes() != tensors[i].gradient.data()) return false;
  }
  return true;
}

TensorView BytesView(void* data, int64_t bytes) {
  return TensorView(data, kernels::DType::kU8, {bytes});
}

// The all-reduce with its bytes told apart.
absl::Status AllReduce(const TensorView& data, const ReduceContext& context) {
  const Communicator& communicator = *context.communicator;
  const WireBytes expected = AllReduceBytes(data.size(), static_cast<int64_t>(kernels::SizeOf(data.dtype())),
                                            communicator.size(), communicator.rank());
  const int64_t before = communicator.traffic().bytes_sent;
  TY_RETURN_IF_ERROR(context.communicator->After(*context.stream));
  TY_RETURN_IF_ERROR(context.communicator->AllReduceSum(data, context.scale));
  context.sent->phase2 += expected.phase2;
  context.sent->phase1 += communicator.traffic().bytes_sent - before - expected.phase2;
  return absl::OkStatus();
}

}  // namespace

PlainReducer::PlainReducer(std::vector<BucketTensor> tensors, PieceCoder* coder, int ranks, int rank)
    : tensors_(std::move(tensors)), coder_(coder), ranks_(ranks), rank_(rank) {
  for (const BucketTensor& tensor : tensors_) elements_ += tensor.gradient.size();
  if (tensors_.empty()) return;
  dtype_ = tensors_.front().gradient.dtype();
  if (IsOneRun(tensors_)) run_ = TensorView(tensors_.front().gradient.data(), dtype_, {elements_});
}

BufferNeeds PlainReducer::Needs() const {
  BufferNeeds needs;
  needs.transport = elements_ * static_cast<int64_t>(kernels::SizeOf(dtype_));
  if (!IsOneRun(tensors_)) needs.gathered = needs.transport;
  return needs;
}

WireBytes PlainReducer::BytesSent() const {
  return AllReduceBytes(elements_, static_cast<int64_t>(kernels::SizeOf(dtype_)), ranks_, rank_);
}

absl::Status PlainReducer::Reduce(const ReduceContext& context) {
  for (const BucketTensor& tensor : tensors_) coder_->KeepExactGradient(tensor);
  if (run_) return AllReduce(run_, context);
  char* place = context.buffers->gathered.data();
  for (const BucketTensor& tensor : tensors_) {
    CopyBytes({BytesView(tensor.gradient.data(), tensor.gradient.bytes()), BytesView(place, tensor.gradient.bytes())},
              *context.stream);
    place += tensor.gradient.bytes();
  }
  TY_RETURN_IF_ERROR(AllReduce(TensorView(context.buffers->gathered.data(), dtype_, {elements_}), context));
  place = context.buffers->gathered.data();
  for (const BucketTensor& tensor : tensors_) {
    CopyBytes({BytesView(place, tensor.gradient.bytes()), BytesView(tensor.gradient.data(), tensor.gradient.bytes())},
              *context.stream);
    place += tensor.gradient.bytes();
  }
  return absl::OkStatus();
}

}  // namespace trainyard::comm
