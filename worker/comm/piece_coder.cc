#include "worker/comm/piece_coder.h"

#include <algorithm>

#include "kernels/codec/piece_math.h"
#include "kernels/codec/squared_distance.h"
#include "worker/comm/partition.h"

namespace trainyard::comm {
namespace {

using kernels::BFloat16;
using kernels::DType;
using kernels::TensorView;

constexpr int64_t Align8(int64_t bytes) {
  return (bytes + 7) / 8 * 8;
}

TensorView BytesView(const void* data, int64_t bytes) {
  return TensorView(const_cast<void*>(data), DType::kU8, {bytes});
}

}  // namespace

void WidenInto(const TensorView& from, float* to) {
  if (from.dtype() == DType::kF32) {
    std::copy_n(from.as<float>(), from.size(), to);
    return;
  }
  const BFloat16* const narrow = from.as<BFloat16>();
  for (int64_t i = 0; i < from.size(); ++i) to[i] = kernels::ToFloat(narrow[i]);
}

void StoreInto(const float* from, const TensorView& to) {
  if (to.dtype() == DType::kF32) {
    std::copy_n(from, to.size(), to.as<float>());
    return;
  }
  BFloat16* const narrow = to.as<BFloat16>();
  for (int64_t i = 0; i < to.size(); ++i) narrow[i] = kernels::FromFloat<BFloat16>(from[i]);
}

std::vector<std::vector<Slice>> CutIntoParts(const std::vector<BucketTensor>& tensors, int parts) {
  int64_t total = 0;
  for (const BucketTensor& tensor : tensors) total += tensor.gradient.size();
  std::vector<std::vector<Slice>> cut(static_cast<size_t>(parts));
  for (int owner = 0; owner < parts; ++owner) {
    const Part part = PartOf(total, parts, owner);
    int64_t tensor_begin = 0;
    for (const BucketTensor& tensor : tensors) {
      const int64_t size = tensor.gradient.size();
      const int64_t begin = std::max(part.begin, tensor_begin);
      const int64_t end = std::min(part.end, tensor_begin + size);
      if (begin < end) {
        const CodecSlice where{tensor.index, begin - tensor_begin, end - begin};
        cut[static_cast<size_t>(owner)].push_back(
            {where, tensor.gradient.Reshape({size}).Slice(where.begin, where.elements)});
      }
      tensor_begin += size;
    }
  }
  return cut;
}

void PieceCoder::BeginStep(int64_t step, float scale, bool measures) {
  step_ = step;
  scale_ = scale;
  measures_ = measures;
  std::fill(error_.begin(), error_.end(), 0.0);
  std::fill(energy_.begin(), energy_.end(), 0.0);
}

Codec* PieceCoder::CodecOf(const Slice& slice, int phase) const {
  const CodecSet& codecs = parts_.codecs();
  if (!codecs.is_coded(slice.where.tensor)) return nullptr;
  return phase == 1 ? &codecs.phase1(slice.where.tensor) : &codecs.phase2(slice.where.tensor);
}

int64_t PieceCoder::MaxBytes(const Slice& slice, int phase) const {
  const Codec* const codec = CodecOf(slice, phase);
  return Align8(codec != nullptr ? codec->MaxBytes(slice.where.elements)
                                 : slice.where.elements * static_cast<int64_t>(sizeof(float)));
}

bool PieceCoder::HasFixedPieces(const std::vector<Slice>& slices) const {
  return std::all_of(slices.begin(), slices.end(), [&](const Slice& slice) {
    const Codec* const codec = CodecOf(slice, 1);
    return codec == nullptr || codec->is_fixed_length();
  });
}

char* PieceCoder::Encode(const Slice& slice, int phase, const float* values, char* out) {
  int64_t bytes = slice.where.elements * static_cast<int64_t>(sizeof(float));
  if (Codec* const coder = CodecOf(slice, phase)) {
    bytes = coder->Encode(slice.where, {parts_.options().seed, step_, parts_.rank(), phase}, values, out, *stream_);
  } else {
    CopyBytes({BytesView(values, bytes), BytesView(out, bytes)}, *stream_);
  }
  const Codec* const codec = CodecOf(slice, phase);
  encoded_bytes(phase)[codec != nullptr ? codec->name() : "none"] += Align8(bytes);
  if (bytes < Align8(bytes)) ZeroBytes(BytesView(out + bytes, Align8(bytes) - bytes), *stream_);
  return out + Align8(bytes);
}

const char* PieceCoder::Decode(const Slice& slice, int phase, const char* in, float* values) {
  int64_t bytes = slice.where.elements * static_cast<int64_t>(sizeof(float));
  if (Codec* const codec = CodecOf(slice, phase)) {
    bytes = codec->Decode(slice.where, in, values, *stream_);
  } else {
    CopyBytes({BytesView(in, bytes), BytesView(values, bytes)}, *stream_);
  }
  return in + Align8(bytes);
}

const float* PieceCoder::Piece(const Slice& slice, float* buffer) const {
  const float* const feedback = parts_.feedback(slice.where.tensor);
  if (feedback == nullptr && slice.values.dtype() == DType::kF32) return slice.values.as<float>();
  const int64_t elements = slice.where.elements;
  WidenAdd({.x = slice.values,
            .addend = feedback != nullptr ? FloatsView(feedback + slice.where.begin, elements) : TensorView(),
            .y = FloatsView(buffer, elements)},
           *stream_);
  return buffer;
}

char* PieceCoder::EncodePiece(const Slice& slice, const float* values, const float* before, float* scratch, char* out) {
  const CodecTimer timer(this);
  char* const end = Encode(slice, 1, values, out);
  const int tensor = slice.where.tensor;
  const int64_t elements = slice.where.elements;
  const bool is_coded = parts_.codecs().is_coded(tensor);
  float* const feedback = parts_.feedback(tensor);
  const bool measures = measures_ && is_coded;
  if (feedback == nullptr && contributions_.empty() && !measures) return end;

  const float* arrives = values;
  if (is_coded) {
    Decode(slice, 1, out, scratch);
    arrives = scratch;
  }
  if (feedback != nullptr) {
    KeepLost({.value = FloatsView(values, elements),
              .decoded = FloatsView(arrives, elements),
              .kept = FloatsView(feedback + slice.where.begin, elements)},
             *stream_);
  }
  if (measures) {
    const auto type = static_cast<size_t>(parts_.codecs().type_of(tensor));
    error_[type] += SquaredDistance({FloatsView(arrives, elements), FloatsView(values, elements)}, *stream_);
    energy_[type] += SquaredNorm(FloatsView(values, elements), *stream_);
  }
  if (!contributions_.empty()) {
    const TensorView contribution =
        FloatsView(contributions_[static_cast<size_t>(tensor)] + slice.where.begin, elements);
    if (before == nullptr) {
      WidenAdd({.x = FloatsView(arrives, elements), .addend = TensorView(), .y = contribution}, *stream_);
    } else {
      Difference({.a = FloatsView(arrives, elements), .b = FloatsView(before, elements), .y = contribution}, *stream_);
    }
  }
  return end;
}

const char* PieceCoder::DecodePiece(const Slice& slice, const char* in, float* values) {
  const CodecTimer timer(this);
  return Decode(slice, 1, in, values);
}

void PieceCoder::KeepExactPiece(const Slice& slice, const float* piece) {
  if (contributions_.empty()) return;
  const int64_t elements = slice.where.elements;
  float* const contribution = contributions_[static_cast<size_t>(slice.where.tensor)] + slice.where.begin;
  WidenAdd({.x = FloatsView(piece, elements), .addend = TensorView(), .y = FloatsView(contribution, elements)},
           *stream_);
}

void PieceCoder::KeepExactGradient(const BucketTensor& tensor) {
  if (contributions_.empty()) return;
  float* const contribution = contributions_[static_cast<size_t>(tensor.index)];
  WidenAdd({.x = tensor.gradient, .addend = TensorView(), .y = FloatsView(contribution, tensor.gradient.size())},
           *stream_);
}

char* PieceCoder::EncodeSum(const Slice& slice, const float* sum, float* scratch, char* out) {
  const CodecTimer timer(this);
  char* const end = Encode(slice, 2, sum, out);
  if (float* const feedback = parts_.feedback(slice.where.tensor)) {
    const int64_t elements = slice.where.elements;
    Decode(slice, 2, out, scratch);
    KeepLost({.value = FloatsView(sum, elements),
              .decoded = FloatsView(scratch, elements),
              .kept = FloatsView(feedback + slice.where.begin, elements),
              .divisor = scale_},
             *stream_);
  }
  return end;
}

const char* PieceCoder::DecodeSum(const Slice& slice, const char* in, float* scratch) {
  const CodecTimer timer(this);
  if (slice.values.dtype() == DType::kF32) return Decode(slice, 2, in, slice.values.as<float>());
  const char* const end = Decode(slice, 2, in, scratch);
  RoundSum({.x = FloatsView(scratch, slice.where.elements), .y = slice.values}, *stream_);
  return end;
}

std::vector<double> PieceCoder::SquaredErrors() const {
  std::vector<double> errors(error_.size(), -1.0);
  for (size_t type = 0; type < errors.size(); ++type) {
    if (energy_[type] > 0) errors[type] = error_[type] / energy_[type];
  }
  return errors;
}

}  // namespace trainyard::comm
