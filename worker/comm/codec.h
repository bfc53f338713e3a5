// The form gradients have on the wire. A codec turns a slice of one tensor into bytes and back; how long they are is a
// pure function, so no sizes travel and all buffers are planned.
//
// In the exchange (scatter-reduce-allgather) each rank owns one part of a bucket. Phase 1: every rank encodes its piece
// of each foreign part and sends it to the owner; the owner adds the decoded pieces to its own exact piece, in rank
// order. Phase 2: the owner encodes the sum, sends it to all and, like all, keeps what decodes from those bytes, so the
// ranks stay bit-identical whatever the codec loses.
//
// Codecs are deterministic: random rounding is keyed by CodecKey, and equal bytes decode to equal bits everywhere.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"

namespace trainyard::comm {

// A run of consecutive elements of one tensor.
struct CodecSlice {
  int tensor = 0;     // index over all layers' tensors, in forward order
  int64_t begin = 0;  // first element within the tensor
  int64_t elements = 0;
};

struct CodecKey {
  int64_t step = 0;
  int rank = 0;   // who encodes
  int phase = 1;  // 1: pieces on their way to the owner; 2: the owner's sum
};

// Used by one thread at a time.
class Codec {
 public:
  virtual ~Codec() = default;
  virtual absl::string_view name() const = 0;  // label of metrics: "identity", "maxmin"

  // The exchange then sums without encoding, which gives the same bits faster.
  virtual bool is_identity() const { return false; }

  // Bytes of the slice on the wire. May change only between two steps, and then on all ranks at the same step.
  virtual int64_t EncodedBytes(const CodecSlice& slice, int phase) const = 0;
  // Reads slice.elements values, writes EncodedBytes.
  virtual void Encode(const CodecSlice& slice, const CodecKey& key, const float* values, char* out) = 0;
  // The reverse; overwrites `values`.
  virtual void Decode(const CodecSlice& slice, int phase, const char* in, float* values) = 0;
};

// f32 as it is, little-endian.
std::unique_ptr<Codec> MakeIdentityCodec();

// Tensors a lossy codec must not touch: vectors (norm weights, biases) and small ones travel as f32 (torch_cgx does the
// same).
struct CodecPolicy {
  int64_t min_elements = 1024;
  bool skip_vectors = true;
};
inline bool IsCoded(const CodecPolicy& policy, int64_t elements, int dims) {
  return elements >= policy.min_elements && !(policy.skip_vectors && dims <= 1);
}

}  // namespace trainyard::comm
