#include "worker/comm/ring_reducer.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/codec/piece_math.h"

namespace trainyard::comm {
namespace {

size_t Index(int rank) {
  return static_cast<size_t>(rank);
}

}  // namespace

RingReducer::RingReducer(const std::vector<BucketTensor>& tensors, PieceCoder* coder, int ranks, int rank)
    : coder_(coder),
      ranks_(ranks),
      rank_(rank),
      parts_(CutIntoParts(tensors, ranks)),
      sum_bytes_(Index(ranks)),
      length_bytes_(Index(ranks), sizeof(int64_t)) {
  for (const std::vector<Slice>& part : parts_) {
    for (const Slice& slice : part) longest_slice_ = std::max(longest_slice_, slice.where.elements);
  }
  for (auto* list : {&blocks_.in_offsets, &blocks_.send_bytes, &blocks_.out_offsets, &blocks_.recv_bytes}) {
    list->resize(Index(ranks));
  }
}

int64_t RingReducer::PieceBytes(int part) const {
  int64_t bytes = 0;
  for (const Slice& slice : parts_[Index(part)]) bytes += coder_->MaxPieceBytes(slice);
  return bytes;
}

int64_t RingReducer::SumBytes(int part) const {
  int64_t bytes = 0;
  for (const Slice& slice : parts_[Index(part)]) bytes += coder_->MaxSumBytes(slice);
  return bytes;
}

bool RingReducer::HasFixedPieces() const {
  return std::all_of(parts_.begin(), parts_.end(),
                     [&](const std::vector<Slice>& part) { return coder_->HasFixedPieces(part); });
}

BufferNeeds RingReducer::Needs() const {
  BufferNeeds needs;
  for (int part = 0; part < ranks_; ++part) {
    needs.sent = std::max({needs.sent, PieceBytes(part), SumBytes(part)});
    needs.gathered += SumBytes(part);
  }
  needs.received = needs.sent;
  needs.values = needs.decoded = needs.sum = longest_slice_;
  return needs;
}

WireBytes RingReducer::BytesSent() const {
  WireBytes bytes;
  for (int part = 0; part < ranks_; ++part) {
    if (part != rank_) bytes.phase1 += PieceBytes(part);
  }
  bytes.phase2 = SumBytes(rank_) * (ranks_ - 1);
  return bytes;
}

absl::Status RingReducer::Pass(const ReduceContext& context, int64_t bytes, int part) {
  const size_t next = Index((rank_ + 1) % ranks_), previous = Index((rank_ + ranks_ - 1) % ranks_);
  const SentMeter meter(*context.communicator, &context.sent->phase1);
  int64_t arriving = PieceBytes(part);
  const auto exchange = [&](const void* in, int64_t in_bytes, void* out, int64_t out_bytes) {
    std::fill(blocks_.send_bytes.begin(), blocks_.send_bytes.end(), 0);
    std::fill(blocks_.recv_bytes.begin(), blocks_.recv_bytes.end(), 0);
    blocks_.in = static_cast<const char*>(in);
    blocks_.out = static_cast<char*>(out);
    blocks_.send_bytes[next] = in_bytes;
    blocks_.recv_bytes[previous] = out_bytes;
    return context.communicator->AllToAllBytes(blocks_);
  };
  if (!HasFixedPieces()) {
    const int64_t most = arriving;
    TY_RETURN_IF_ERROR(exchange(&bytes, sizeof(bytes), &arriving, sizeof(arriving)));
    if (arriving < 0 || arriving > most) return absl::DataLossError("a piece longer than its codec can make it");
  }
  TY_RETURN_IF_ERROR(context.communicator->After(*context.stream));
  return exchange(context.buffers->sent.data(), bytes, context.buffers->received.data(), arriving);
}

absl::Status RingReducer::Reduce(const ReduceContext& context) {
  ExchangeBuffers& buffers = *context.buffers;
  kernels::Stream& stream = *context.stream;
  float* const values = buffers.values.floats();
  float* const arrived = buffers.sum.floats();
  // values = arrived + piece, or the piece where the part starts.
  const auto add = [&](const Slice& slice, const char** in) -> const float* {
    const float* const piece = coder_->Piece(slice, values);
    if (in == nullptr) return piece;
    *in = coder_->DecodePiece(slice, *in, arrived);
    const int64_t elements = slice.where.elements;
    WidenAdd(
        {.x = FloatsView(piece, elements), .addend = FloatsView(arrived, elements), .y = FloatsView(values, elements)},
        stream);
    return values;
  };
  const auto part_at = [&](int hop) { return (rank_ + 2 * ranks_ - 1 - hop) % ranks_; };
  for (int hop = 0; hop + 1 < ranks_; ++hop) {
    const char* in = buffers.received.data();
    char* out = buffers.sent.data();
    for (const Slice& slice : parts_[Index(part_at(hop))]) {
      const float* const sum = add(slice, hop > 0 ? &in : nullptr);
      out = coder_->EncodePiece(slice, sum, hop > 0 ? arrived : nullptr, buffers.decoded.floats(), out);
    }
    TY_RETURN_IF_ERROR(Pass(context, out - buffers.sent.data(), part_at(hop + 1)));
  }

  const char* in = buffers.received.data();
  char* out = buffers.sent.data();
  for (const Slice& slice : parts_[Index(rank_)]) {
    coder_->KeepExactPiece(slice, coder_->Piece(slice, values));
    add(slice, &in);
    ScaleInPlace({FloatsView(values, slice.where.elements), context.scale}, stream);
    out = coder_->EncodeSum(slice, values, buffers.decoded.floats(), out);
  }
  const int64_t own_bytes = out - buffers.sent.data();
  {
    const SentMeter meter(*context.communicator, &context.sent->phase2);
    for (int part = 0; part < ranks_; ++part) sum_bytes_[Index(part)] = SumBytes(part);
    if (!HasFixedPieces()) {
      TY_RETURN_IF_ERROR(context.communicator->AllGatherBytes(&own_bytes, length_bytes_, sum_bytes_.data()));
      for (int part = 0; part < ranks_; ++part) {
        if (sum_bytes_[Index(part)] < 0 || sum_bytes_[Index(part)] > SumBytes(part)) {
          return absl::DataLossError("a sum longer than its codec can make it");
        }
      }
    }
    TY_RETURN_IF_ERROR(context.communicator->After(stream));
    TY_RETURN_IF_ERROR(context.communicator->AllGatherBytes(buffers.sent.data(), sum_bytes_, buffers.gathered.data()));
  }
  in = buffers.gathered.data();
  for (const std::vector<Slice>& part : parts_) {
    for (const Slice& slice : part) in = coder_->DecodeSum(slice, in, buffers.decoded.floats());
  }
  return absl::OkStatus();
}

}  // namespace trainyard::comm
