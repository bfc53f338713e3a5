#include "worker/comm/codecs/sign_mean_codec.h"

#include "kernels/codec/sign_mean.h"
#include "worker/comm/codecs/views.h"

namespace trainyard::comm {
namespace {

class SignMeanCodec final : public PackedCodec {
 public:
  explicit SignMeanCodec(const SignMeanCodecOptions& options) : format_{options.bucket_size} {
    TY_CHECK(kernels::IsBucketSize(options.bucket_size));
  }

  absl::string_view name() const override { return "sign_mean"; }
  kernels::BucketWire WireOf(int64_t elements) const override { return format_.WireOf(elements); }

  int64_t Encode(const CodecSlice& slice, const CodecKey&, const float* values, char* out,
                 kernels::Stream& stream) override {
    const int64_t bytes = MaxBytes(slice.elements);
    kernels::SignMeanEncode({.x = ValuesView(values, slice.elements), .wire = WireView(out, bytes), .format = format_},
                            stream);
    return bytes;
  }

  int64_t Decode(const CodecSlice& slice, const char* in, float* values, kernels::Stream& stream) override {
    const int64_t bytes = MaxBytes(slice.elements);
    kernels::SignMeanDecode({.wire = WireView(in, bytes), .y = ValuesView(values, slice.elements), .format = format_},
                            stream);
    return bytes;
  }

 private:
  const kernels::SignMeanFormat format_;
};

}  // namespace

std::unique_ptr<PackedCodec> MakeSignMeanCodec(const SignMeanCodecOptions& options) {
  return std::make_unique<SignMeanCodec>(options);
}

}  // namespace trainyard::comm
