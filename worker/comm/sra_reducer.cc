#include "worker/comm/sra_reducer.h"

#include <algorithm>
#include <numeric>

#include "base/status_macros.h"
#include "kernels/codec/piece_math.h"

namespace trainyard::comm {
namespace {

size_t Index(int rank) {
  return static_cast<size_t>(rank);
}

}  // namespace

SraReducer::SraReducer(const std::vector<BucketTensor>& tensors, PieceCoder* coder, int ranks, int rank)
    : coder_(coder),
      ranks_(ranks),
      rank_(rank),
      parts_(CutIntoParts(tensors, ranks)),
      sum_bytes_(Index(ranks)),
      lengths_(Index(ranks * ranks)),
      length_bytes_(Index(ranks), static_cast<int64_t>(sizeof(int64_t)) * ranks),
      cursors_(Index(ranks)) {
  for (const std::vector<Slice>& part : parts_) {
    for (const Slice& slice : part) longest_slice_ = std::max(longest_slice_, slice.where.elements);
  }
  for (auto* list : {&blocks_.in_offsets, &blocks_.send_bytes, &blocks_.out_offsets, &blocks_.recv_bytes}) {
    list->resize(Index(ranks));
  }
}

int64_t SraReducer::PieceBytes(int owner) const {
  int64_t bytes = 0;
  for (const Slice& slice : parts_[Index(owner)]) bytes += coder_->MaxPieceBytes(slice);
  return bytes;
}

int64_t SraReducer::SumBytes(int owner) const {
  int64_t bytes = 0;
  for (const Slice& slice : parts_[Index(owner)]) bytes += coder_->MaxSumBytes(slice);
  return bytes;
}

bool SraReducer::HasFixedPieces() const {
  return std::all_of(parts_.begin(), parts_.end(),
                     [&](const std::vector<Slice>& part) { return coder_->HasFixedPieces(part); });
}

BufferNeeds SraReducer::Needs() const {
  BufferNeeds needs;
  needs.sent = BytesSent().phase1;
  needs.received = PieceBytes(rank_) * (ranks_ - 1);
  for (int owner = 0; owner < ranks_; ++owner) needs.gathered += SumBytes(owner);
  needs.values = needs.decoded = needs.sum = longest_slice_;
  return needs;
}

WireBytes SraReducer::BytesSent() const {
  WireBytes bytes;
  for (int owner = 0; owner < ranks_; ++owner) {
    if (owner != rank_) bytes.phase1 += PieceBytes(owner);
  }
  bytes.phase2 = SumBytes(rank_) * (ranks_ - 1);
  return bytes;
}

absl::Status SraReducer::SendPieces(const ReduceContext& context) {
  ExchangeBuffers& buffers = *context.buffers;
  const int64_t own_bytes = PieceBytes(rank_);
  char* out = buffers.sent.data();
  for (int owner = 0; owner < ranks_; ++owner) {
    char* const begin = out;
    if (owner != rank_) {
      for (const Slice& slice : parts_[Index(owner)]) {
        const float* const piece = coder_->Piece(slice, buffers.values.floats());
        out = coder_->EncodePiece(slice, piece, nullptr, buffers.decoded.floats(), out);
      }
    }
    blocks_.in_offsets[Index(owner)] = begin - buffers.sent.data();
    blocks_.send_bytes[Index(owner)] = out - begin;
    blocks_.recv_bytes[Index(owner)] = owner == rank_ ? 0 : own_bytes;
  }
  blocks_.in = buffers.sent.data();
  blocks_.out = buffers.received.data();
  const SentMeter meter(*context.communicator, &context.sent->phase1);
  if (!HasFixedPieces()) {
    TY_RETURN_IF_ERROR(context.communicator->AllGatherBytes(blocks_.send_bytes.data(), length_bytes_, lengths_.data()));
    for (int from = 0; from < ranks_; ++from) {
      const int64_t length = lengths_[Index(from * ranks_ + rank_)];
      // A length from the wire: it must fit into the buffer.
      if (length < 0 || length > own_bytes) return absl::DataLossError("a piece longer than its codec can make it");
      blocks_.recv_bytes[Index(from)] = length;
    }
  }
  int64_t offset = 0;
  for (int from = 0; from < ranks_; ++from) {
    blocks_.out_offsets[Index(from)] = offset;
    offset += blocks_.recv_bytes[Index(from)];
  }
  TY_RETURN_IF_ERROR(context.communicator->After(*context.stream));
  return context.communicator->AllToAllBytes(blocks_);
}

absl::Status SraReducer::Reduce(const ReduceContext& context) {
  ExchangeBuffers& buffers = *context.buffers;
  kernels::Stream& stream = *context.stream;
  TY_RETURN_IF_ERROR(SendPieces(context));

  int64_t before_own = 0;
  for (int owner = 0; owner < ranks_; ++owner) {
    sum_bytes_[Index(owner)] = SumBytes(owner);
    if (owner < rank_) before_own += sum_bytes_[Index(owner)];
    cursors_[Index(owner)] = buffers.received.data() + blocks_.out_offsets[Index(owner)];
  }
  char* const coded_sum = buffers.gathered.data() + before_own;
  char* out = coded_sum;
  float* const sum = buffers.sum.floats();
  for (const Slice& slice : parts_[Index(rank_)]) {
    const int64_t elements = slice.where.elements;
    for (int from = 0; from < ranks_; ++from) {
      const float* piece = buffers.decoded.floats();
      if (from == rank_) {
        piece = coder_->Piece(slice, buffers.values.floats());
        coder_->KeepExactPiece(slice, piece);
      } else {
        cursors_[Index(from)] = coder_->DecodePiece(slice, cursors_[Index(from)], buffers.decoded.floats());
      }
      WidenAdd({.x = FloatsView(piece, elements),
                .addend = from == 0 ? kernels::TensorView() : FloatsView(sum, elements),
                .y = FloatsView(sum, elements)},
               stream);
    }
    ScaleInPlace({FloatsView(sum, elements), context.scale}, stream);
    out = coder_->EncodeSum(slice, sum, buffers.decoded.floats(), out);
  }
  {
    const SentMeter meter(*context.communicator, &context.sent->phase2);
    TY_RETURN_IF_ERROR(context.communicator->After(stream));
    TY_RETURN_IF_ERROR(context.communicator->AllGatherBytes(coded_sum, sum_bytes_, buffers.gathered.data()));
  }
  const char* in = buffers.gathered.data();
  for (const std::vector<Slice>& part : parts_) {
    for (const Slice& slice : part) in = coder_->DecodeSum(slice, in, buffers.decoded.floats());
  }
  return absl::OkStatus();
}

}  // namespace trainyard::comm
