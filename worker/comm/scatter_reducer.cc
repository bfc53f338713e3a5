#include "worker/comm/scatter_reducer.h"

#include <algorithm>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/codec/piece_math.h"

namespace trainyard::comm {
namespace {

using kernels::DType;
using kernels::TensorView;

constexpr int64_t kFloat = sizeof(float);

size_t Index(int64_t i) {
  return static_cast<size_t>(i);
}

TensorView Floats(float* data, int64_t count) {
  return TensorView(data, DType::kF32, {count});
}

TensorView FlatPart(const TensorView& tensor, const Part& part) {
  return tensor.Reshape({tensor.size()}).Slice(part.begin, part.size());
}

void Copy(const TensorView& from, const TensorView& to, kernels::Stream& stream) {
  CopyBytes({TensorView(from.data(), DType::kU8, {from.bytes()}), TensorView(to.data(), DType::kU8, {to.bytes()})},
            stream);
}

}  // namespace

ScatterReducer::ScatterReducer(const std::vector<BucketTensor>& tensors, const ScatterOptions& scatter, int ranks,
                               int rank)
    : scatter_(scatter), ranks_(ranks), rank_(rank) {
  TY_CHECK_EQ(scatter.map.ranks(), ranks);
  std::vector<int64_t> bytes;
  for (const BucketTensor& tensor : tensors) {
    TY_CHECK(tensor.gradient.dtype() == DType::kF32);
    TY_CHECK_EQ(tensor.gradient.size(), scatter.map.size(Index(tensor.index)));
    bytes.push_back(tensor.gradient.bytes());
  }
  for (const TensorRun& run : CutIntoRuns(bytes)) {
    runs_.push_back(MakeRun(tensors.data() + run.first, tensors.data() + run.last));
  }
}

ScatterReducer::Run ScatterReducer::MakeRun(const BucketTensor* first, const BucketTensor* last) const {
  Run run;
  run.tensors.assign(first, last);
  run.is_packed = run.tensors.size() > 1;
  for (int rank = 0; rank < ranks_; ++rank) {
    int64_t elements = 0;
    for (const BucketTensor& tensor : run.tensors) elements += scatter_.map.part(Index(tensor.index), rank).size();
    run.packed_from.push_back(run.elements);  // of a single tensor, where the part begins
    run.of_rank.push_back(elements);
    run.elements += elements;
  }
  Communicator::Blocks& blocks = run.blocks;
  int64_t received = 0;
  for (int rank = 0; rank < ranks_; ++rank) {
    const bool is_own = rank == rank_;
    blocks.in_offsets.push_back(run.packed_from[Index(rank)] * kFloat);
    blocks.send_bytes.push_back(is_own ? 0 : run.of_rank[Index(rank)] * kFloat);
    blocks.out_offsets.push_back(received);
    blocks.recv_bytes.push_back(is_own ? 0 : run.of_rank[Index(rank_)] * kFloat);
    received += blocks.recv_bytes.back();
  }
  return run;
}

BufferNeeds ScatterReducer::Needs() const {
  BufferNeeds needs;
  for (const Run& run : runs_) {
    const int64_t own = run.of_rank[Index(rank_)];
    needs.received = std::max(needs.received, (ranks_ - 1) * own * kFloat);
    if (run.is_packed) {
      needs.values = std::max(needs.values, run.elements);
    } else if (scatter_.accumulates) {
      needs.sum = std::max(needs.sum, own);
    }
  }
  return needs;
}

WireBytes ScatterReducer::BytesSent() const {
  WireBytes bytes;
  for (const Run& run : runs_) bytes.phase1 += (run.elements - run.of_rank[Index(rank_)]) * kFloat;
  return bytes;
}

// Rank by rank, tensor by tensor: what a rank is sent lies in one piece.
void ScatterReducer::Pack(const Run& run, float* packed, kernels::Stream& stream) const {
  for (int rank = 0; rank < ranks_; ++rank) {
    for (const BucketTensor& tensor : run.tensors) {
      const Part part = scatter_.map.part(Index(tensor.index), rank);
      if (part.size() == 0) continue;
      Copy(FlatPart(tensor.gradient, part), Floats(packed, part.size()), stream);
      packed += part.size();
    }
  }
}

absl::Status ScatterReducer::Reduce(const ReduceContext& context) {
  const SentMeter meter(*context.communicator, &context.sent->phase1);
  for (Run& run : runs_) TY_RETURN_IF_ERROR(ReduceRun(run, context));
  return absl::OkStatus();
}

absl::Status ScatterReducer::ReduceRun(Run& run, const ReduceContext& context) {
  ExchangeBuffers& buffers = *context.buffers;
  kernels::Stream& stream = *context.stream;
  float* const source = run.is_packed ? buffers.values.floats() : run.tensors.front().gradient.as<float>();
  if (run.is_packed) Pack(run, source, stream);
  run.blocks.in = reinterpret_cast<const char*>(source);
  run.blocks.out = buffers.received.data();
  TY_RETURN_IF_ERROR(context.communicator->After(stream));
  TY_RETURN_IF_ERROR(context.communicator->AllToAllBytes(run.blocks));

  const int64_t elements = run.of_rank[Index(rank_)];
  if (elements == 0) return absl::OkStatus();
  const TensorView own_piece = Floats(source + run.packed_from[Index(rank_)], elements);
  const TensorView& only_part = scatter_.parts[Index(run.tensors.front().index)];
  TensorView sum = own_piece;
  if (!run.is_packed) sum = context.accumulate ? Floats(buffers.sum.floats(), elements) : only_part;
  SumPieces({.pieces = TensorView(buffers.received.data(), DType::kF32, {ranks_ - 1, elements}),
             .own_piece = own_piece,
             .own = rank_,
             .scale = context.scale,
             .out = sum},
            stream);
  if (!run.is_packed && !context.accumulate) return absl::OkStatus();
  float* from = sum.as<float>();
  for (const BucketTensor& tensor : run.tensors) {
    const TensorView& part = scatter_.parts[Index(tensor.index)];
    if (!part) continue;
    if (context.accumulate) {
      WidenAdd({.x = Floats(from, part.size()), .addend = part, .y = part}, stream);
    } else {
      Copy(Floats(from, part.size()), part, stream);
    }
    from += part.size();
  }
  return absl::OkStatus();
}

}  // namespace trainyard::comm
