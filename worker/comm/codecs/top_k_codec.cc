#include "worker/comm/codecs/top_k_codec.h"

#include "base/check.h"
#include "kernels/codec/top_k.h"
#include "worker/comm/codecs/views.h"
#include "worker/comm/exchange_memory.h"

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

  int64_t Encode(const CodecSlice& slice, const CodecKey&, const float* values, char* out,
                 kernels::Stream& stream) override {
    const int64_t k = kernels::TopKCount(slice.elements, density_);
    const int64_t bytes = kernels::TopKBytes(k);
    const bool is_cuda = stream.device() == kernels::Device::kCuda;
    if (is_cuda) {
      memory_.SetKind(kernels::MemoryKind::kDevice);
      TY_CHECK_OK(memory_.Grow(kernels::kTopKWorkspaceBytes));  // a few KiB, once
    }
    kernels::TopKEncode({.x = ValuesView(values, slice.elements),
                         .wire = WireView(out, bytes),
                         .k = k,
                         .workspace = is_cuda ? WireView(memory_.data(), memory_.bytes()) : kernels::TensorView()},
                        stream);
    return bytes;
  }

  int64_t Decode(const CodecSlice& slice, const char* in, float* values, kernels::Stream& stream) override {
    const int64_t k = kernels::TopKCount(slice.elements, density_);
    const int64_t bytes = kernels::TopKBytes(k);
    kernels::TopKDecode({.wire = WireView(in, bytes), .y = ValuesView(values, slice.elements), .k = k}, stream);
    return bytes;
  }

 private:
  const double density_;
  ExchangeMemory memory_;
};

}  // namespace

std::unique_ptr<Codec> MakeTopKCodec(const TopKCodecOptions& options) {
  return std::make_unique<TopKCodec>(options);
}

}  // namespace trainyard::comm
