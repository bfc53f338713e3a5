#include "worker/comm/codecs/huffman_codec.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/codec/bit_packing.h"
#include "kernels/core/dispatch.h"
#include "worker/comm/exchange_memory.h"

namespace trainyard::comm {
namespace {

using kernels::BucketWire;

class HuffmanCodec final : public Codec {
 public:
  HuffmanCodec(std::unique_ptr<PackedCodec> inner, kernels::HuffmanTable table)
      : inner_(std::move(inner)), table_(std::move(table)) {
    TY_CHECK_EQ(table_.symbols(), 1 << inner_->WireOf(0).bits);
  }

  absl::string_view name() const override { return inner_->name(); }
  bool is_fixed_length() const override { return false; }
  int64_t MaxBytes(int64_t elements) const override {
    return inner_->WireOf(elements).codes_offset() + kLengthBytes + table_.MaxBytes(elements);
  }

  int64_t Encode(const CodecSlice& slice, const CodecKey& key, const float* values, char* out,
                 kernels::Stream& stream) override {
    const BucketWire wire = Reserve(slice.elements, stream);
    inner_->Encode(slice, key, values, wire_.data(), stream);
    kernels::WaitForDevice(stream);
    std::memcpy(out, wire_.data(), static_cast<size_t>(wire.codes_offset()));
    kernels::UnpackCodes(Packed(wire), wire.elements, wire.bits, codes_.data());
    char* const coded = out + wire.codes_offset() + kLengthBytes;
    const int64_t bytes = table_.Encode(codes_.data(), wire.elements, coded);
    const uint32_t length = static_cast<uint32_t>(bytes);
    std::memcpy(out + wire.codes_offset(), &length, sizeof(length));
    return wire.codes_offset() + kLengthBytes + bytes;
  }

  int64_t Decode(const CodecSlice& slice, const char* in, float* values, kernels::Stream& stream) override {
    const BucketWire wire = Reserve(slice.elements, stream);
    std::memcpy(wire_.data(), in, static_cast<size_t>(wire.codes_offset()));
    uint32_t length;
    std::memcpy(&length, in + wire.codes_offset(), sizeof(length));
    // The sender is a rank with the same table, and the transport is reliable.
    TY_CHECK_LE(static_cast<int64_t>(length), table_.MaxBytes(wire.elements));
    TY_CHECK(table_.Decode(in + wire.codes_offset() + kLengthBytes, length, wire.elements, codes_.data()));
    kernels::PackCodes(codes_.data(), wire.elements, wire.bits, Packed(wire));
    inner_->Decode(slice, wire_.data(), values, stream);
    return wire.codes_offset() + kLengthBytes + length;
  }

 private:
  static constexpr int64_t kLengthBytes = sizeof(uint32_t);

  // Waits for what the last call left the stream to do with the memory, and for `in` and `out`.
  BucketWire Reserve(int64_t elements, kernels::Stream& stream) {
    kernels::WaitForDevice(stream);
    const BucketWire wire = inner_->WireOf(elements);
    wire_.SetKind(MemoryKindOf(stream));
    TY_CHECK_OK(wire_.Grow(std::max<int64_t>(1, wire.bytes())));  // as long as the largest slice, once
    if (static_cast<int64_t>(codes_.size()) < elements) codes_.resize(static_cast<size_t>(elements));
    return wire;
  }
  uint8_t* Packed(const BucketWire& wire) { return reinterpret_cast<uint8_t*>(wire_.data()) + wire.codes_offset(); }

  const std::unique_ptr<PackedCodec> inner_;
  const kernels::HuffmanTable table_;
  ExchangeMemory wire_;  // of the inner codec
  std::vector<uint8_t> codes_ = std::vector<uint8_t>(1);
};

}  // namespace

std::unique_ptr<Codec> MakeHuffmanCodec(std::unique_ptr<PackedCodec> inner, kernels::HuffmanTable table) {
  return std::make_unique<HuffmanCodec>(std::move(inner), std::move(table));
}

void AddCodeCounts(PackedCodec& codec, const CodecSlice& slice, const CodecKey& key, const float* values,
                   absl::Span<int64_t> counts) {
  const BucketWire wire = codec.WireOf(slice.elements);
  TY_CHECK_EQ(static_cast<int64_t>(counts.size()), int64_t{1} << wire.bits);
  std::vector<char> bytes(static_cast<size_t>(wire.bytes()));
  std::vector<uint8_t> codes(static_cast<size_t>(wire.elements));
  kernels::Stream on_host(1);
  codec.Encode(slice, key, values, bytes.data(), on_host);
  kernels::UnpackCodes(reinterpret_cast<const uint8_t*>(bytes.data()) + wire.codes_offset(), wire.elements, wire.bits,
                       codes.data());
  for (const uint8_t code : codes) ++counts[code];
}

}  // namespace trainyard::comm
