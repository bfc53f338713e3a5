#include "worker/comm/codecs/level_codec.h"

#include "worker/comm/codecs/views.h"

namespace trainyard::comm {
namespace {

class LevelCodec final : public PackedCodec {
 public:
  explicit LevelCodec(const LevelCodecOptions& options)
      : levels_(options.levels), format_{levels_, options.norm, options.bucket_size} {
    TY_CHECK(kernels::IsBucketSize(options.bucket_size));
  }

  absl::string_view name() const override { return "levels"; }
  kernels::BucketWire WireOf(int64_t elements) const override { return format_.WireOf(elements); }

  int64_t Encode(const CodecSlice& slice, const CodecKey& key, const float* values, char* out,
                 kernels::Stream& stream) override {
    const int64_t bytes = MaxBytes(slice.elements);
    kernels::LevelEncode({.x = ValuesView(values, slice.elements),
                          .wire = WireView(out, bytes),
                          .format = format_,
                          .random = RandomKey(slice, key),
                          .first_element = slice.begin},
                         stream);
    return bytes;
  }

  int64_t Decode(const CodecSlice& slice, const char* in, float* values, kernels::Stream& stream) override {
    const int64_t bytes = MaxBytes(slice.elements);
    kernels::LevelDecode({.wire = WireView(in, bytes), .y = ValuesView(values, slice.elements), .format = format_},
                         stream);
    return bytes;
  }

 private:
  const std::vector<float> levels_;
  const kernels::LevelFormat format_;  // points at levels_
};

}  // namespace

std::unique_ptr<PackedCodec> MakeLevelCodec(const LevelCodecOptions& options) {
  return std::make_unique<LevelCodec>(options);
}

}  // namespace trainyard::comm
