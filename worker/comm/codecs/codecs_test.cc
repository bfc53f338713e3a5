// What every codec owes the exchange (worker/comm/codec.h), and the parts that are not in the kernels' own tests.
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/codec/level_fit.h"
#include "kernels/testing/host_tensor.h"
#include "worker/comm/codecs/huffman_codec.h"
#include "worker/comm/codecs/level_codec.h"
#include "worker/comm/codecs/maxmin_codec.h"
#include "worker/comm/codecs/sign_mean_codec.h"
#include "worker/comm/codecs/top_k_codec.h"

namespace trainyard::comm {
namespace {

using kernels::CodeRounding;
using kernels::HuffmanTable;
using kernels::LevelNorm;

std::vector<float> Normal(int64_t n, uint64_t seed) {
  const kernels::testing::HostTensor x = kernels::testing::HostTensor::Normal(kernels::DType::kF32, {n}, seed);
  return {x.as<float>(), x.as<float>() + n};
}

kernels::Stream& HostStream() {
  static kernels::Stream* const stream = new kernels::Stream(1);
  return *stream;
}

std::vector<char> Encode(Codec& codec, const CodecSlice& slice, const CodecKey& key, const float* values) {
  constexpr char kGuard = 0x5A;
  std::vector<char> bytes(static_cast<size_t>(codec.MaxBytes(slice.elements)) + 1, kGuard);
  const int64_t written = codec.Encode(slice, key, values, bytes.data(), HostStream());
  EXPECT_LE(written, codec.MaxBytes(slice.elements));
  EXPECT_EQ(bytes.back(), kGuard);
  if (codec.is_fixed_length()) {
    EXPECT_EQ(written, codec.MaxBytes(slice.elements));
  }
  bytes.resize(static_cast<size_t>(written));
  return bytes;
}

std::vector<float> Decode(Codec& codec, const CodecSlice& slice, const std::vector<char>& bytes) {
  std::vector<float> values(static_cast<size_t>(slice.elements), 1e9f);
  EXPECT_EQ(codec.Decode(slice, bytes.data(), values.data(), HostStream()), static_cast<int64_t>(bytes.size()));
  return values;
}

HuffmanTable EvenTable(int bits) {
  return HuffmanTable::FromCounts(std::vector<int64_t>(size_t{1} << bits, 1));
}

struct NamedCodec {
  std::string name;
  std::function<std::unique_ptr<Codec>()> make;
};

std::vector<NamedCodec> AllCodecs() {
  return {
      {"maxmin", [] { return MakeMaxminCodec({.bits = 4, .bucket_size = 128}); }},
      {"maxmin", [] { return MakeMaxminCodec({.bits = 3, .bucket_size = 64, .rounding = CodeRounding::kNearest}); }},
      {"levels",
       [] {
         return MakeLevelCodec({.levels = kernels::UniformLevels(7), .norm = LevelNorm::kL2, .bucket_size = 128});
       }},
      {"levels", [] { return MakeLevelCodec({.levels = kernels::ExponentialLevels(100), .bucket_size = 64}); }},
      {"sign_mean", [] { return MakeSignMeanCodec({.bucket_size = 128}); }},
      {"top_k", [] { return MakeTopKCodec({.density = 0.1}); }},
      {"maxmin", [] { return MakeHuffmanCodec(MakeMaxminCodec({.bits = 5, .bucket_size = 128}), EvenTable(5)); }},
      {"levels",
       [] {
         return MakeHuffmanCodec(MakeLevelCodec({.levels = kernels::UniformLevels(3), .bucket_size = 128}),
                                 EvenTable(3));
       }},
  };
}

TEST(CodecsTest, LengthsNamesAndTwoEncodersAgree) {
  for (const NamedCodec& named : AllCodecs()) {
    const std::unique_ptr<Codec> sender = named.make();
    const std::unique_ptr<Codec> receiver = named.make();
    EXPECT_EQ(sender->name(), named.name);
    EXPECT_FALSE(sender->is_identity());
    for (const int64_t n : {0, 1, 7, 8, 64, 100, 1000, 4097}) {
      const std::vector<float> x = Normal(n, 3);
      const CodecSlice slice{5, 13, n};
      const CodecKey key{77, 123456, 3, 1};
      const std::vector<char> bytes = Encode(*sender, slice, key, x.data());
      EXPECT_EQ(Encode(*receiver, slice, key, x.data()), bytes) << named.name;
      EXPECT_EQ(Decode(*sender, slice, bytes), Decode(*receiver, slice, bytes));
    }
  }
}

TEST(CodecsTest, ZerosAreExact) {
  for (const NamedCodec& named : AllCodecs()) {
    const std::unique_ptr<Codec> codec = named.make();
    const std::vector<float> zeros(500, 0.0f);
    const CodecSlice slice{0, 0, 500};
    EXPECT_EQ(Decode(*codec, slice, Encode(*codec, slice, {}, zeros.data())), zeros) << named.name;
  }
}

TEST(CodecsTest, WhatIsNotFiniteBecomesNan) {
  for (const NamedCodec& named : AllCodecs()) {
    const std::unique_ptr<Codec> codec = named.make();
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), -HUGE_VALF}) {
      for (const size_t at : {0, 300, 499}) {
        std::vector<float> x = Normal(500, 9);
        x[at] = bad;
        const CodecSlice slice{0, 0, 500};
        const std::vector<float> y = Decode(*codec, slice, Encode(*codec, slice, {}, x.data()));
        EXPECT_TRUE(std::isnan(y[at])) << named.name << " " << bad << " at " << at;
        for (const float value : y) EXPECT_FALSE(std::isinf(value));
      }
    }
  }
}

// A slice that begins anywhere draws for its elements what the whole tensor does: only then do the ranks' noises stay
// the same however a bucket is cut. Buckets restart, so the cut is at a multiple of them and the noise is compared.
TEST(CodecsTest, DrawsBelongToTheElementNotToTheSlice) {
  const std::vector<float> x = Normal(1024, 21);
  for (const bool is_maxmin : {true, false}) {
    const std::unique_ptr<Codec> codec =
        is_maxmin ? MakeMaxminCodec({.bits = 4, .bucket_size = 128})
                  : MakeLevelCodec({.levels = kernels::UniformLevels(7), .bucket_size = 128});
    const CodecKey key{1, 2, 3, 1};
    for (const int64_t tensor_begin : {0, 1, 2, 3, 5, 7, 100, 1001}) {
      const CodecSlice whole{4, tensor_begin, 1024};
      const std::vector<float> y = Decode(*codec, whole, Encode(*codec, whole, key, x.data()));
      for (const int64_t cut : {128, 512, 896}) {
        const CodecSlice rest{4, tensor_begin + cut, 1024 - cut};
        const std::vector<float> z = Decode(*codec, rest, Encode(*codec, rest, key, x.data() + cut));
        ASSERT_EQ(z, (std::vector<float>(y.begin() + cut, y.end()))) << tensor_begin << " cut " << cut;
      }
    }
  }
}

TEST(CodecsTest, RanksPhasesStepsTensorsAndSeedsDrawApart) {
  const std::vector<float> x = Normal(512, 27);
  const CodecSlice slice{4, 0, 512};
  const std::unique_ptr<Codec> codec = MakeMaxminCodec({.bits = 4, .bucket_size = 512});
  const std::vector<float> base = Decode(*codec, slice, Encode(*codec, slice, {1, 2, 3, 1}, x.data()));
  const auto differs = [&](const CodecSlice& other_slice, const CodecKey& key) {
    const std::vector<float> y = Decode(*codec, other_slice, Encode(*codec, other_slice, key, x.data()));
    int different = 0;
    for (size_t i = 0; i < y.size(); ++i) different += y[i] != base[i] ? 1 : 0;
    return different > 64;  // independent draws differ in a third of the elements or so
  };
  EXPECT_FALSE(differs(slice, {1, 2, 3, 1}));
  EXPECT_TRUE(differs(slice, {9, 2, 3, 1}));
  EXPECT_TRUE(differs(slice, {1, 3, 3, 1}));
  EXPECT_TRUE(differs(slice, {1, 2, 2, 1}));
  EXPECT_TRUE(differs(slice, {1, 2, 3, 2}));
  EXPECT_TRUE(differs({5, 0, 512}, {1, 2, 3, 1}));
  EXPECT_TRUE(differs({4, 1, 512}, {1, 2, 3, 1}));
}

TEST(HuffmanCodecTest, SameValuesInFewerBytes) {
  const int64_t n = 512 * 200;
  const std::vector<float> x = Normal(n, 33);
  const CodecSlice slice{0, 0, n};
  const CodecKey key{1, 2, 3, 1};
  // Entropy and Huffman bits a value of Gaussian data in buckets of 512 (quantized-comm.md 2.10).
  const double huffman_bits[] = {0, 0, 1.63, 2.44, 3.439, 0, 0, 0, 7.49};
  for (const int bits : {2, 3, 4, 8}) {
    const MaxminCodecOptions options{.bits = bits};
    const std::unique_ptr<PackedCodec> plain = MakeMaxminCodec(options);
    std::vector<int64_t> counts(size_t{1} << bits, 0);
    AddCodeCounts(*plain, slice, key, x.data(), absl::MakeSpan(counts));
    const std::unique_ptr<Codec> coded = MakeHuffmanCodec(MakeMaxminCodec(options), HuffmanTable::FromCounts(counts));
    EXPECT_FALSE(coded->is_fixed_length());
    const std::vector<char> bytes = Encode(*coded, slice, key, x.data());
    EXPECT_EQ(Decode(*coded, slice, bytes), Decode(*plain, slice, Encode(*plain, slice, key, x.data())));
    const double stream_bytes = static_cast<double>(bytes.size()) - 8.0 * 200 - 4;
    EXPECT_NEAR(8 * stream_bytes / static_cast<double>(n), huffman_bits[bits], 0.01) << bits;
  }
}

// A table made for other data still says everything, within MaxBytes.
TEST(HuffmanCodecTest, WorstDataForTheTable) {
  std::vector<int64_t> counts(16, 0);
  counts[0] = int64_t{1} << 40;
  for (size_t i = 1; i < 16; ++i) counts[i] = int64_t{1} << i;
  const HuffmanTable table = HuffmanTable::FromCounts(counts);
  const MaxminCodecOptions options{.bits = 4, .bucket_size = 64};
  const std::unique_ptr<Codec> coded = MakeHuffmanCodec(MakeMaxminCodec(options), table);
  const std::unique_ptr<Codec> plain = MakeMaxminCodec(options);
  std::vector<float> x(1000);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 15 + 1);  // mostly codes that are long
  const CodecSlice slice{0, 3, 1000};
  const std::vector<char> bytes = Encode(*coded, slice, {}, x.data());
  EXPECT_GT(bytes.size(), static_cast<size_t>(plain->MaxBytes(1000))) << "the table should be a bad one";
  EXPECT_EQ(Decode(*coded, slice, bytes), Decode(*plain, slice, Encode(*plain, slice, {}, x.data())));
}

}  // namespace
}  // namespace trainyard::comm
