#include "worker/comm/allgather_reducer.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/codec/piece_math.h"

namespace trainyard::comm {

AllGatherReducer::AllGatherReducer(const std::vector<BucketTensor>& tensors, PieceCoder* coder, int ranks, int rank)
    : coder_(coder),
      ranks_(ranks),
      rank_(rank),
      slices_(CutIntoParts(tensors, 1).front()),
      piece_bytes_(static_cast<size_t>(ranks)),
      length_bytes_(static_cast<size_t>(ranks), sizeof(int64_t)),
      cursors_(static_cast<size_t>(ranks)) {
  for (const Slice& slice : slices_) longest_slice_ = std::max(longest_slice_, slice.where.elements);
}

int64_t AllGatherReducer::PieceBytes() const {
  int64_t bytes = 0;
  for (const Slice& slice : slices_) bytes += coder_->MaxPieceBytes(slice);
  return bytes;
}

BufferNeeds AllGatherReducer::Needs() const {
  BufferNeeds needs;
  needs.sent = PieceBytes();
  needs.gathered = needs.sent * ranks_;
  needs.values = needs.decoded = needs.sum = longest_slice_;
  return needs;
}

WireBytes AllGatherReducer::BytesSent() const {
  return {PieceBytes() * (ranks_ - 1), 0};
}

absl::Status AllGatherReducer::Reduce(const ReduceContext& context) {
  ExchangeBuffers& buffers = *context.buffers;
  kernels::Stream& stream = *context.stream;
  char* out = buffers.sent.data();
  for (const Slice& slice : slices_) {
    const float* const piece = coder_->Piece(slice, buffers.values.floats());
    out = coder_->EncodePiece(slice, piece, nullptr, buffers.decoded.floats(), out);
  }
  const int64_t own_bytes = out - buffers.sent.data();
  std::fill(piece_bytes_.begin(), piece_bytes_.end(), own_bytes);
  {
    const SentMeter meter(*context.communicator, &context.sent->phase1);
    if (!coder_->HasFixedPieces(slices_)) {
      TY_RETURN_IF_ERROR(context.communicator->AllGatherBytes(&own_bytes, length_bytes_, piece_bytes_.data()));
      for (const int64_t length : piece_bytes_) {
        if (length < 0 || length > PieceBytes())
          return absl::DataLossError("a piece longer than its codec can make it");
      }
    }
    TY_RETURN_IF_ERROR(context.communicator->After(stream));
    TY_RETURN_IF_ERROR(
        context.communicator->AllGatherBytes(buffers.sent.data(), piece_bytes_, buffers.gathered.data()));
  }
  const char* begin = buffers.gathered.data();
  for (size_t from = 0; from < cursors_.size(); ++from) {
    cursors_[from] = begin;
    begin += piece_bytes_[from];
  }
  float* const sum = buffers.sum.floats();
  float* const decoded = buffers.decoded.floats();
  for (const Slice& slice : slices_) {
    const int64_t elements = slice.where.elements;
    for (size_t from = 0; from < cursors_.size(); ++from) {
      cursors_[from] = coder_->DecodePiece(slice, cursors_[from], from == 0 ? sum : decoded);
      if (from == 0) continue;
      const kernels::TensorView so_far = FloatsView(sum, elements);
      WidenAdd({.x = FloatsView(decoded, elements), .addend = so_far, .y = so_far}, stream);
    }
    ScaleInPlace({FloatsView(sum, elements), context.scale}, stream);
    RoundSum({.x = FloatsView(sum, elements), .y = slice.values}, stream);
  }
  return absl::OkStatus();
}

}  // namespace trainyard::comm
