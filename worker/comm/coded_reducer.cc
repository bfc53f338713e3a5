#include "worker/comm/coded_reducer.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/status_macros.h"
#include "worker/comm/partition.h"

namespace trainyard::comm {
namespace {

using kernels::BFloat16;
using kernels::DType;
using kernels::TensorView;

constexpr int64_t Align8(int64_t bytes) {
  return (bytes + 7) / 8 * 8;
}

// The values as f32: where they lie, or widened into `buffer`.
const float* AsFloat(const TensorView& values, float* buffer) {
  if (values.dtype() == DType::kF32) return values.as<float>();
  const BFloat16* narrow = values.as<BFloat16>();
  for (int64_t i = 0; i < values.size(); ++i) buffer[i] = kernels::ToFloat(narrow[i]);
  return buffer;
}

void Store(const float* from, const TensorView& to) {
  if (to.dtype() == DType::kF32) {
    std::copy_n(from, to.size(), to.as<float>());
    return;
  }
  BFloat16* narrow = to.as<BFloat16>();
  for (int64_t i = 0; i < to.size(); ++i) narrow[i] = kernels::FromFloat<BFloat16>(from[i]);
}

template <typename T>
void Grow(std::vector<T>* buffer, int64_t size) {
  if (static_cast<int64_t>(buffer->size()) < size) buffer->resize(static_cast<size_t>(size));
}

}  // namespace

int64_t CodedBuffers::bytes() const {
  return static_cast<int64_t>(sent.size() + received.size() + gathered.size() +
                              sizeof(float) * (values.size() + decoded.size() + sum.size()));
}

CodedReducer::CodedReducer(std::vector<CodedTensor> tensors, int ranks, int rank) : ranks_(ranks), rank_(rank) {
  int64_t total = 0;
  for (const CodedTensor& tensor : tensors) total += tensor.gradient.size();
  for (int owner = 0; owner < ranks; ++owner) {
    const Part part = PartOf(total, ranks, owner);
    std::vector<Slice>& slices = parts_.emplace_back();
    int64_t tensor_begin = 0;
    for (const CodedTensor& tensor : tensors) {
      const int64_t begin = std::max(part.begin, tensor_begin);
      const int64_t end = std::min(part.end, tensor_begin + tensor.gradient.size());
      if (begin < end) {
        const CodecSlice where{tensor.index, begin - tensor_begin, end - begin};
        slices.push_back({where, tensor.gradient.Reshape({tensor.gradient.size()}).Slice(where.begin, where.elements),
                          tensor.is_coded});
        longest_slice_ = std::max(longest_slice_, where.elements);
      }
      tensor_begin += tensor.gradient.size();
    }
    if (owner == rank) own_elements_ = part.size();
  }
  const size_t count = static_cast<size_t>(ranks);
  blocks_.in_offsets.resize(count);
  blocks_.send_bytes.resize(count);
  blocks_.out_offsets.resize(count);
  blocks_.recv_bytes.resize(count);
  part_bytes_.resize(count);
}

int64_t CodedReducer::BytesOf(const Codec& codec, const Slice& slice, int phase) const {
  const int64_t plain = slice.where.elements * static_cast<int64_t>(sizeof(float));
  return Align8(slice.is_coded ? codec.MaxBytes(slice.where.elements) : plain);
}

int64_t CodedReducer::BytesOf(const Codec& codec, const std::vector<Slice>& part, int phase) const {
  int64_t bytes = 0;
  for (const Slice& slice : part) bytes += BytesOf(codec, slice, phase);
  return bytes;
}

void CodedReducer::Encode(Codec& codec, const CodecKey& key, const Slice& slice, const float* values, char* out) const {
  const int64_t bytes = BytesOf(codec, slice, key.phase);
  std::memset(out + bytes - std::min<int64_t>(bytes, 8), 0, static_cast<size_t>(std::min<int64_t>(bytes, 8)));
  if (slice.is_coded) {
    codec.Encode(slice.where, key, values, out);
  } else {
    std::memcpy(out, values, static_cast<size_t>(slice.where.elements) * sizeof(float));
  }
}

void CodedReducer::Decode(Codec& codec, int phase, const Slice& slice, const char* in, float* values) const {
  if (slice.is_coded) {
    codec.Decode(slice.where, in, values);
  } else {
    std::memcpy(values, in, static_cast<size_t>(slice.where.elements) * sizeof(float));
  }
}

void CodedReducer::Reserve(const Codec& codec, CodedBuffers* buffers) {
  const size_t own = static_cast<size_t>(rank_);
  int64_t sent = 0, received = 0;
  for (size_t peer = 0; peer < parts_.size(); ++peer) {
    part_bytes_[peer] = BytesOf(codec, parts_[peer], 2);
    blocks_.send_bytes[peer] = peer == own ? 0 : BytesOf(codec, parts_[peer], 1);
    blocks_.recv_bytes[peer] = peer == own ? 0 : BytesOf(codec, parts_[own], 1);
    blocks_.in_offsets[peer] = sent;
    blocks_.out_offsets[peer] = received;
    sent += blocks_.send_bytes[peer];
    received += blocks_.recv_bytes[peer];
  }
  Grow(&buffers->sent, sent);
  Grow(&buffers->received, received);
  Grow(&buffers->gathered, std::accumulate(part_bytes_.begin(), part_bytes_.end(), int64_t{0}));
  Grow(&buffers->values, longest_slice_);
  Grow(&buffers->decoded, longest_slice_);
  Grow(&buffers->sum, longest_slice_);
}

absl::Status CodedReducer::Reduce(int64_t step, float scale, Codec& codec, Communicator& communicator,
                                  CodedBuffers* buffers) {
  Reserve(codec, buffers);
  const std::vector<Slice>& own_part = parts_[static_cast<size_t>(rank_)];

  // Phase 1: my pieces to the owners.
  char* out = buffers->sent.data();
  for (int owner = 0; owner < ranks_; ++owner) {
    if (owner == rank_) continue;
    for (const Slice& slice : parts_[static_cast<size_t>(owner)]) {
      Encode(codec, {0, step, rank_, 1}, slice, AsFloat(slice.values, buffers->values.data()), out);
      out += BytesOf(codec, slice, 1);
    }
  }
  blocks_.in = buffers->sent.data();
  blocks_.out = buffers->received.data();
  TY_RETURN_IF_ERROR(communicator.AllToAllBytes(blocks_));

  // Sum in rank order, the own piece exact; phase 2: the coded sum to all.
  int64_t gathered_begin = 0;
  for (int owner = 0; owner < rank_; ++owner) gathered_begin += part_bytes_[static_cast<size_t>(owner)];
  char* const coded_sum = buffers->gathered.data() + gathered_begin;
  out = coded_sum;
  int64_t slice_offset = 0;  // in every rank's block: they hold the same slices
  for (const Slice& slice : own_part) {
    float* const sum = buffers->sum.data();
    const int64_t elements = slice.where.elements;
    for (int from = 0; from < ranks_; ++from) {
      const float* piece = nullptr;
      if (from == rank_) {
        piece = AsFloat(slice.values, buffers->values.data());
      } else {
        const char* block = buffers->received.data() + blocks_.out_offsets[static_cast<size_t>(from)];
        Decode(codec, 1, slice, block + slice_offset, buffers->decoded.data());
        piece = buffers->decoded.data();
      }
      if (from == 0) {
        std::copy_n(piece, elements, sum);
      } else {
        for (int64_t i = 0; i < elements; ++i) sum[i] += piece[i];
      }
    }
    for (int64_t i = 0; i < elements; ++i) sum[i] *= scale;
    Encode(codec, {0, step, rank_, 2}, slice, sum, out);
    out += BytesOf(codec, slice, 2);
    slice_offset += BytesOf(codec, slice, 1);
  }
  TY_RETURN_IF_ERROR(communicator.AllGatherBytes(coded_sum, part_bytes_, buffers->gathered.data()));

  // The owner too keeps what the others decode.
  const char* in = buffers->gathered.data();
  for (const std::vector<Slice>& part : parts_) {
    for (const Slice& slice : part) {
      Decode(codec, 2, slice, in, buffers->decoded.data());
      Store(buffers->decoded.data(), slice.values);
      in += BytesOf(codec, slice, 2);
    }
  }
  return absl::OkStatus();
}

}  // namespace trainyard::comm
