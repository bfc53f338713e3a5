// Codes the slices of a bucket, and keeps account of what coding them did: error feedback, contributions, the measured
// error, the time it took. Shared by the reducers.
//
// Error feedback (quantized-comm.md 2.8): a rank sends C(p) of p = gradient + feedback and keeps p - C(p). What an
// owner loses of the sum (phase 2) it adds to its own feedback, in units of the unscaled sum. Where p or C(p) is not
// finite the feedback stays as it was: such a step is dropped, and must not poison those after it.
//
// All of it is enqueued on the stream; host code that looks at what it made waits for the stream first. Lengths that
// Encode returns are known at once.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "worker/comm/codec.h"
#include "worker/comm/exchange_parts.h"

namespace trainyard::comm {

struct Slice {
  CodecSlice where;
  kernels::TensorView values;  // of the gradient: f32 or bf16, one-dimensional
};

struct BucketTensor {
  int index = 0;  // in forward order over all layers
  kernels::TensorView gradient;
};

// The slices of each part, if the tensors one after the other are cut by PartOf.
std::vector<std::vector<Slice>> CutIntoParts(const std::vector<BucketTensor>& tensors, int parts);

class PieceCoder {
 public:
  // `contributions` by tensor, each as long as it; empty if nobody wants them. Without a stream only sizes can be
  // asked.
  PieceCoder(ExchangeParts* parts, std::vector<float*> contributions, kernels::Stream* stream = nullptr)
      : parts_(*parts),
        stream_(stream),
        contributions_(std::move(contributions)),
        error_(parts->codecs().types().size()),
        energy_(parts->codecs().types().size()) {}

  // `measures`: compare what is encoded in phase 1 with what decodes, for TakeSquaredErrors.
  void BeginStep(int64_t step, float scale, bool measures);

  // Bytes on the wire, a multiple of 8.
  int64_t MaxPieceBytes(const Slice& slice) const { return MaxBytes(slice, 1); }
  int64_t MaxSumBytes(const Slice& slice) const { return MaxBytes(slice, 2); }
  bool HasFixedPieces(const std::vector<Slice>& slices) const;

  // gradient + feedback: where it lies, or in `buffer`.
  const float* Piece(const Slice& slice, float* buffer) const;

  // Encodes `values`, which are the piece, or `before` + the piece if `before` is not null. Returns the end of the
  // bytes. `scratch` takes slice.elements floats.
  char* EncodePiece(const Slice& slice, const float* values, const float* before, float* scratch, char* out);
  const char* DecodePiece(const Slice& slice, const char* in, float* values);

  // The piece goes into the sum as it is.
  void KeepExactPiece(const Slice& slice, const float* piece);

  void KeepExactGradient(const BucketTensor& tensor);

  // `sum` is scaled.
  char* EncodeSum(const Slice& slice, const float* sum, float* scratch, char* out);
  // Into the gradient. `scratch` as above.
  const char* DecodeSum(const Slice& slice, const char* in, float* scratch);

  kernels::Stream& stream() const { return *stream_; }

  // Of the host: on a GPU what it takes to enqueue the work.
  double codec_seconds() const { return seconds_; }
  void AddCodecSeconds(double seconds) { seconds_ += seconds; }
  // Bytes that were encoded in a phase, by codec ("none": not coded). The caller takes them down to 0 when it has
  // booked them; entries stay, so that a steady step allocates nothing.
  std::map<absl::string_view, int64_t>& encoded_bytes(int phase) { return phase == 1 ? encoded1_ : encoded2_; }
  // Since BeginStep, by layer type: |decoded - value|^2 / |value|^2; negative where nothing was measured.
  std::vector<double> SquaredErrors() const;

 private:
  int64_t MaxBytes(const Slice& slice, int phase) const;
  Codec* CodecOf(const Slice& slice, int phase) const;
  char* Encode(const Slice& slice, int phase, const float* values, char* out);
  const char* Decode(const Slice& slice, int phase, const char* in, float* values);

  ExchangeParts& parts_;
  kernels::Stream* const stream_;
  const std::vector<float*> contributions_;
  int64_t step_ = 0;
  float scale_ = 1.0f;
  bool measures_ = false;
  std::vector<double> error_, energy_;  // by layer type
  double seconds_ = 0;
  std::map<absl::string_view, int64_t> encoded1_, encoded2_;
};

// Books the time it lives to the coder.
class CodecTimer {
 public:
  explicit CodecTimer(PieceCoder* coder) : coder_(coder), start_(RealClock()->Monotonic()) {}
  ~CodecTimer() { coder_->AddCodecSeconds(absl::ToDoubleSeconds(RealClock()->Monotonic() - start_)); }
  CodecTimer(const CodecTimer&) = delete;
  CodecTimer& operator=(const CodecTimer&) = delete;

 private:
  PieceCoder* const coder_;
  const absl::Duration start_;
};

// Gradient storage to f32 and back, on the host.
void WidenInto(const kernels::TensorView& from, float* to);
void StoreInto(const float* from, const kernels::TensorView& to);

// `elements` floats at `data`.
inline kernels::TensorView FloatsView(const float* data, int64_t elements) {
  return kernels::TensorView(const_cast<float*>(data), kernels::DType::kF32, {elements});
}

}  // namespace trainyard::comm
