// A codec whose wire form is that of kernels/codec/bucket_wire.h: metadata of the buckets, then codes of a fixed number
// of bits. What entropy coding works on.
#pragma once

#include <memory>

#include "kernels/codec/bucket_wire.h"
#include "kernels/core/philox.h"
#include "worker/comm/codec.h"

namespace trainyard::comm {

class PackedCodec : public Codec {
 public:
  virtual kernels::BucketWire WireOf(int64_t elements) const = 0;
  int64_t MaxBytes(int64_t elements) const final { return WireOf(elements).bytes(); }
};

// The words a slice's elements draw: independent between ranks, steps, phases and tensors.
inline kernels::PhiloxKey RandomKey(const CodecSlice& slice, const CodecKey& key) {
  return {.seed = key.seed,
          .step = static_cast<uint32_t>(key.step),
          .micro_step = static_cast<uint16_t>(key.rank << 1 | (key.phase - 1)),
          .purpose = kernels::kRandomCodec,
          .tensor = static_cast<uint32_t>(slice.tensor)};
}

}  // namespace trainyard::comm
