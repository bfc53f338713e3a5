#include "worker/comm/codecs/maxmin_codec.h"

#include "kernels/codec/maxmin.h"
#include "worker/comm/codecs/views.h"

namespace trainyard::comm {
namespace {

class MaxminCodec final : public PackedCodec {
 public:
  explicit MaxminCodec(const MaxminCodecOptions& options)
      : format_{options.bits, options.bucket_size}, rounding_(options.rounding) {
    TY_CHECK(options.bits >= 1 && options.bits <= 8);
    TY_CHECK(kernels::IsBucketSize(options.bucket_size));
  }

  absl::string_view name() const override { return "maxmin"; }
  kernels::BucketWire WireOf(int64_t elements) const override { return format_.WireOf(elements); }

  int64_t Encode(const CodecSlice& slice, const CodecKey& key, const float* values, char* out,
                 kernels::Stream& stream) override {
    const int64_t bytes = MaxBytes(slice.elements);
    kernels::MaxminEncode({.x = ValuesView(values, slice.elements),
                           .wire = WireView(out, bytes),
                           .format = format_,
                           .rounding = rounding_,
                           .random = RandomKey(slice, key),
                           .first_element = slice.begin},
                          stream);
    return bytes;
  }

  int64_t Decode(const CodecSlice& slice, const char* in, float* values, kernels::Stream& stream) override {
    const int64_t bytes = MaxBytes(slice.elements);
    kernels::MaxminDecode({.wire = WireView(in, bytes), .y = ValuesView(values, slice.elements), .format = format_},
                          stream);
    return bytes;
  }

 private:
  const kernels::MaxminFormat format_;
  const kernels::CodeRounding rounding_;
};

}  // namespace

std::unique_ptr<PackedCodec> MakeMaxminCodec(const MaxminCodecOptions& options) {
  return std::make_unique<MaxminCodec>(options);
}

}  // namespace trainyard::comm
