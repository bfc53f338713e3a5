#include "worker/comm/part_gather.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/codec/piece_math.h"

namespace trainyard::comm {

using kernels::TensorView;

PartGather::PartGather(std::vector<TensorView> tensors, ShardMap map, int rank)
    : tensors_(std::move(tensors)), map_(std::move(map)), rank_(rank) {
  TY_CHECK_EQ(tensors_.size(), map_.tensors());
  std::vector<int64_t> bytes;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    TY_CHECK_EQ(tensors_[i].size(), map_.size(i));
    bytes.push_back(tensors_[i].bytes());
  }
  for (const TensorRun& cut : CutIntoRuns(bytes)) {
    Run& run = runs_.emplace_back();
    run.first = cut.first;
    run.last = cut.last;
    run.is_packed = cut.last - cut.first > 1;
    for (int owner = 0; owner < map_.ranks(); ++owner) {
      if (owner == rank_) run.own_begin = run.total_bytes;
      run.bytes.push_back(0);
      for (size_t i = run.first; i < run.last; ++i) run.bytes.back() += BytesOf(i, owner).size();
      run.total_bytes += run.bytes.back();
    }
  }
}

TensorView PartGather::BytesOf(size_t tensor, int rank) const {
  const TensorView& whole = tensors_[tensor];
  const TensorView part =
      whole.Reshape({whole.size()}).Slice(map_.part(tensor, rank).begin, map_.part(tensor, rank).size());
  return TensorView(part.data(), kernels::DType::kU8, {part.bytes()});
}

int64_t PartGather::WorkspaceBytes() const {
  int64_t most = 0;
  for (const Run& run : runs_) {
    if (run.is_packed) most = std::max(most, run.total_bytes);
  }
  return most;
}

int64_t PartGather::BytesSent() const {
  int64_t sent = 0;
  for (const Run& run : runs_) sent += run.bytes[static_cast<size_t>(rank_)] * (map_.ranks() - 1);
  return sent;
}

// Packed: rank by rank, tensor by tensor.
void PartGather::Move(const Run& run, Direction direction, char* packed, kernels::Stream& stream) const {
  for (int owner = 0; owner < map_.ranks(); ++owner) {
    const bool packs = direction == Direction::kPackOwn;
    for (size_t i = run.first; i < run.last; ++i) {
      const TensorView part = BytesOf(i, owner);
      const TensorView place(packed, kernels::DType::kU8, {part.size()});
      packed += part.size();
      if (part.size() == 0 || packs != (owner == rank_)) continue;
      CopyBytes({packs ? part : place, packs ? place : part}, stream);
    }
  }
}

absl::Status PartGather::Gather(const TensorView& workspace, Communicator& communicator,
                                kernels::Stream& stream) const {
  TY_CHECK_EQ(communicator.size(), map_.ranks());
  TY_CHECK_GE(workspace.bytes(), WorkspaceBytes());
  for (const Run& run : runs_) {
    char* const memory = static_cast<char*>(run.is_packed ? workspace.data() : tensors_[run.first].data());
    if (run.is_packed) Move(run, Direction::kPackOwn, memory, stream);
    TY_RETURN_IF_ERROR(communicator.After(stream));
    TY_RETURN_IF_ERROR(communicator.AllGatherBytes(memory + run.own_begin, run.bytes, memory));
    if (run.is_packed) Move(run, Direction::kUnpackOthers, memory, stream);
  }
  return absl::OkStatus();
}

}  // namespace trainyard::comm
