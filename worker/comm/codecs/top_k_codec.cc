#include "worker/comm/codecs/top_k_codec.h"

#include "kernels/codec/top_k.h"
#include "worker/comm/codecs/views.h"

namespace trainyard::comm {
namespace {

class TopKCodec final : public Codec {
 public:
  explicit TopKCodec(const TopKCodecOptions& options) : density_(options.density) {
    TY_CHECK(density_ > 0 && density_ <= 1);
  }

  absl::string_view name() const override { return "top_k"; }
  int64_t MaxBytes(int64_t elements) const override {
    return kernels::TopKBytes(kernels::TopKCount(elements, density_));
  }

  int64_t Encode(const CodecSlice& slice, const CodecKey&, const float* values, char* out) override {
    const int64_t k = kernels::TopKCount(slice.elements, density_);
    const int64_t bytes = kernels::TopKBytes(k);
    kernels::TopKEncode({.x = ValuesView(values, slice.elements), .wire = WireView(out, bytes), .k = k}, stream_);
    return bytes;
  }

  int64_t Decode(const CodecSlice& slice, const char* in, float* values) override {
    const int64_t k = kernels::TopKCount(slice.elements, density_);
    const int64_t bytes = kernels::TopKBytes(k);
    kernels::TopKDecode({.wire = WireView(in, bytes), .y = ValuesView(values, slice.elements), .k = k}, stream_);
    return bytes;
  }

 private:
  const double density_;
  kernels::Stream stream_{1};
};

}  // namespace

std::unique_ptr<Codec> MakeTopKCodec(const TopKCodecOptions& options) {
  return std::make_unique<TopKCodec>(options);
}

}  // namespace trainyard::comm
