#include "worker/comm/codec.h"

#include <cstring>

namespace trainyard::comm {
namespace {

class IdentityCodec final : public Codec {
 public:
  absl::string_view name() const override { return "identity"; }
  bool is_identity() const override { return true; }
  int64_t MaxBytes(int64_t elements) const override { return elements * static_cast<int64_t>(sizeof(float)); }
  int64_t Encode(const CodecSlice& slice, const CodecKey& key, const float* values, char* out) override {
    const int64_t bytes = MaxBytes(slice.elements);
    if (bytes > 0) std::memcpy(out, values, static_cast<size_t>(bytes));
    return bytes;
  }
  int64_t Decode(const CodecSlice& slice, const char* in, float* values) override {
    const int64_t bytes = MaxBytes(slice.elements);
    if (bytes > 0) std::memcpy(values, in, static_cast<size_t>(bytes));
    return bytes;
  }
};

}  // namespace

std::unique_ptr<Codec> MakeIdentityCodec() {
  return std::make_unique<IdentityCodec>();
}

}  // namespace trainyard::comm
