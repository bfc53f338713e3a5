#include "worker/comm/codec.h"

#include <cstring>

namespace trainyard::comm {
namespace {

class IdentityCodec final : public Codec {
 public:
  absl::string_view name() const override { return "identity"; }
  bool is_identity() const override { return true; }
  int64_t EncodedBytes(const CodecSlice& slice, int phase) const override {
    return slice.elements * static_cast<int64_t>(sizeof(float));
  }
  void Encode(const CodecSlice& slice, const CodecKey& key, const float* values, char* out) override {
    if (slice.elements > 0) std::memcpy(out, values, static_cast<size_t>(EncodedBytes(slice, key.phase)));
  }
  void Decode(const CodecSlice& slice, int phase, const char* in, float* values) override {
    if (slice.elements > 0) std::memcpy(values, in, static_cast<size_t>(EncodedBytes(slice, phase)));
  }
};

}  // namespace

std::unique_ptr<Codec> MakeIdentityCodec() {
  return std::make_unique<IdentityCodec>();
}

}  // namespace trainyard::comm
