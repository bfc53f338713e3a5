// The form gradients have on the wire. A codec is one setting (maxmin with 4 bits and buckets of 512, say): it turns a
// slice of one tensor into bytes and back. Implementations: identity here, the others in worker/comm/codecs/.
//
// Codecs are deterministic: random rounding is keyed by CodecKey, tensor and element, and equal bytes decode to equal
// bits everywhere. A bucket without spread decodes exactly. A value that is not finite makes all of its bucket decode
// to NaN, so that every rank rejects the step.
//
// Values and bytes are memory that the stream's device reaches. A codec of fixed length enqueues its work on the stream
// and returns; one whose length depends on the values waits for them and works on the host. The same bytes on all
// devices.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"
#include "kernels/core/stream.h"

namespace trainyard::comm {

// Of all codecs together; ranks with another version are refused when they meet. Goes up when any byte changes.
inline constexpr uint32_t kCodecWireVersion = 1;

// A run of consecutive elements of one tensor; buckets of a codec start anew with it.
struct CodecSlice {
  int tensor = 0;     // index over all layers' tensors, in forward order
  int64_t begin = 0;  // first element within the tensor, any value
  int64_t elements = 0;
};

struct CodecKey {
  uint64_t seed = 0;
  int64_t step = 0;
  int rank = 0;   // who encodes
  int phase = 1;  // 1: pieces on their way to the owner, or to all; 2: the owner's sum
};

// Used by one thread at a time, and with one stream.
class Codec {
 public:
  virtual ~Codec() = default;
  // Label of metrics: "identity", "maxmin". A literal, at most 15 characters.
  virtual absl::string_view name() const = 0;

  // f32 as it is; a bucket of nothing else is summed without encoding, which gives the same bits faster.
  virtual bool is_identity() const { return false; }

  // False for entropy coding: lengths then travel before the bytes.
  virtual bool is_fixed_length() const { return true; }

  // Bytes of a slice of so many elements: exact if is_fixed_length(), else the most it can be.
  virtual int64_t MaxBytes(int64_t elements) const = 0;

  // Reads slice.elements values; writes at most MaxBytes and returns how many.
  virtual int64_t Encode(const CodecSlice& slice, const CodecKey& key, const float* values, char* out,
                         kernels::Stream& stream) = 0;

  // The reverse: overwrites `values` and returns the bytes read.
  virtual int64_t Decode(const CodecSlice& slice, const char* in, float* values, kernels::Stream& stream) = 0;
};

// f32 as it is, little-endian.
std::unique_ptr<Codec> MakeIdentityCodec();

}  // namespace trainyard::comm
