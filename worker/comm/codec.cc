#include "worker/comm/codec.h"

#include "kernels/codec/piece_math.h"

namespace trainyard::comm {
namespace {

kernels::TensorView BytesView(const void* data, int64_t bytes) {
  return kernels::TensorView(const_cast<void*>(data), kernels::DType::kU8, {bytes});
}

class IdentityCodec final : public Codec {
 public:
  absl::string_view name() const override { return "identity"; }
  bool is_identity() const override { return true; }
  int64_t MaxBytes(int64_t elements) const override { return elements * static_cast<int64_t>(sizeof(float)); }
  int64_t Encode(const CodecSlice& slice, const CodecKey&, const float* values, char* out,
                 kernels::Stream& stream) override {
    const int64_t bytes = MaxBytes(slice.elements);
    CopyBytes({BytesView(values, bytes), BytesView(out, bytes)}, stream);
    return bytes;
  }
  int64_t Decode(const CodecSlice& slice, const char* in, float* values, kernels::Stream& stream) override {
    const int64_t bytes = MaxBytes(slice.elements);
    CopyBytes({BytesView(in, bytes), BytesView(values, bytes)}, stream);
    return bytes;
  }
};

}  // namespace

std::unique_ptr<Codec> MakeIdentityCodec() {
  return std::make_unique<IdentityCodec>();
}

}  // namespace trainyard::comm
