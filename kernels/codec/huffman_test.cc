#include "kernels/codec/huffman.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/codec/bit_packing.h"
#include "kernels/codec/maxmin.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

int64_t BitsOf(const HuffmanTable& table, const std::vector<int64_t>& counts) {
  int64_t bits = 0;
  for (int symbol = 0; symbol < table.symbols(); ++symbol) {
    bits += table.length(symbol) * counts[static_cast<size_t>(symbol)];
  }
  return bits;
}

// The cost of Huffman's own algorithm: the sum of all merged weights. No bound on lengths.
int64_t OptimalBits(const std::vector<int64_t>& counts) {
  std::priority_queue<int64_t, std::vector<int64_t>, std::greater<>> weights(counts.begin(), counts.end());
  int64_t bits = 0;
  while (weights.size() > 1) {
    const int64_t a = weights.top();
    weights.pop();
    const int64_t b = weights.top();
    weights.pop();
    bits += a + b;
    weights.push(a + b);
  }
  return bits;
}

std::vector<uint8_t> RandomSymbols(int64_t count, int symbols, uint64_t seed) {
  const testing::HostTensor tokens = testing::RandomTokens(count, int64_t{symbols} * symbols, seed);
  std::vector<uint8_t> result;
  for (int64_t i = 0; i < count; ++i) {  // small symbols more often
    result.push_back(static_cast<uint8_t>(std::sqrt(static_cast<double>(tokens.as<int32_t>()[i]))));
  }
  return result;
}

TEST(HuffmanTest, LengthsOfAKnownAlphabet) {
  const HuffmanTable table = HuffmanTable::FromCounts(std::vector<int64_t>{45, 13, 12, 16, 9, 5});
  EXPECT_EQ(table.ToText(), "acccdd");
  // Canonical: a = 0, then b = 100, c = 101, d = 110, e = 1110, f = 1111. "fab": 1111 0 100, first bit lowest.
  const uint8_t symbols[] = {5, 0, 1};
  char out[2] = {};
  EXPECT_EQ(table.Encode(symbols, 3, out), 1);
  EXPECT_EQ(static_cast<uint8_t>(out[0]), 0b00101111);
}

TEST(HuffmanTest, AsShortAsHuffmansAlgorithm) {
  for (const int symbols : {2, 3, 4, 16, 100, 256}) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const testing::HostTensor random = testing::RandomTokens(symbols, 5000, seed);
      std::vector<int64_t> counts;
      for (int i = 0; i < symbols; ++i) counts.push_back(1 + random.as<int32_t>()[i]);
      EXPECT_EQ(BitsOf(HuffmanTable::FromCounts(counts), counts), OptimalBits(counts));
    }
  }
}

// Fibonacci weights want a code as long as the alphabet; then the best of at most 16 bits is asked for.
TEST(HuffmanTest, NeverLongerThanSixteenBits) {
  std::vector<int64_t> counts = {1, 1};
  while (counts.size() < 40) counts.push_back(counts[counts.size() - 1] + counts[counts.size() - 2]);
  const HuffmanTable table = HuffmanTable::FromCounts(counts);
  EXPECT_EQ(table.longest(), 16);
  double kraft = 0;
  for (int symbol = 0; symbol < 40; ++symbol) kraft += std::ldexp(1.0, -table.length(symbol));
  EXPECT_EQ(kraft, 1.0);
  EXPECT_LT(static_cast<double>(BitsOf(table, counts)), 1.001 * static_cast<double>(OptimalBits(counts)));
}

// Against dynamic programming over all codes of at most 16 bits. A repair after the fact (shorten what is too long,
// then lengthen something) is not always this good.
TEST(HuffmanTest, TheBoundIsMetOptimally) {
  std::vector<int64_t> counts;
  for (int i = 0; i < 20; ++i) counts.push_back(int64_t{1} << i);  // wants 19 bits
  const HuffmanTable table = HuffmanTable::FromCounts(counts);
  // Heaviest first the lengths are 1, 2, ..., and the lightest share what 16 bits leave: by dynamic programming over
  // (symbols left, leaves left at this depth), the least cost of any code of at most 16 bits.
  std::vector<int64_t> heaviest(counts.rbegin(), counts.rend());
  std::vector<int64_t> suffix(21, 0);
  for (int i = 19; i >= 0; --i) {
    suffix[static_cast<size_t>(i)] = suffix[static_cast<size_t>(i) + 1] + heaviest[static_cast<size_t>(i)];
  }
  const std::function<int64_t(int, int, int)> least = [&](int done, int nodes, int depth) -> int64_t {
    if (done == 20) return 0;
    if (depth == 16) return nodes >= 20 - done ? 0 : int64_t{1} << 60;
    int64_t best = int64_t{1} << 60;
    for (int leaves = 0; leaves <= std::min(nodes, 20 - done); ++leaves) {
      const int inner = std::min(2 * (nodes - leaves), 40);
      if (done + leaves < 20 && inner == 0) continue;
      best = std::min(best, suffix[static_cast<size_t>(done + leaves)] + least(done + leaves, inner, depth + 1));
    }
    return best;
  };
  // Near the top the choice is forced (weights are powers of two), so begin where ten symbols are placed.
  for (int symbol = 19; symbol > 9; --symbol) ASSERT_EQ(table.length(symbol), 20 - symbol);
  int64_t tail_bits = 0;
  for (int symbol = 0; symbol <= 9; ++symbol)
    tail_bits += (table.length(symbol) - 10) * counts[static_cast<size_t>(symbol)];
  EXPECT_EQ(tail_bits, least(10, 1, 10));
}

TEST(HuffmanTest, RoundTripsOfAllLengthsAndAlphabets) {
  for (const int symbols : {2, 3, 8, 16, 255, 256}) {
    for (const int64_t count : {0, 1, 2, 3, 7, 8, 31, 64, 1000, 20'011}) {
      const std::vector<uint8_t> data = RandomSymbols(count, symbols, static_cast<uint64_t>(count));
      std::vector<int64_t> counts(static_cast<size_t>(symbols), 0);
      for (const uint8_t symbol : data) ++counts[symbol];
      const HuffmanTable table = HuffmanTable::FromCounts(counts);
      std::vector<char> out(static_cast<size_t>(table.MaxBytes(count)));
      const int64_t bytes = table.Encode(data.data(), count, out.data());
      ASSERT_EQ(bytes, (BitsOf(table, counts) + 7) / 8);
      const std::vector<char> exact(out.begin(), out.begin() + bytes);  // a sanitizer sees a read beyond
      std::vector<uint8_t> back(data.size(), 0xEE);
      ASSERT_TRUE(table.Decode(exact.data(), bytes, count, back.data()));
      ASSERT_EQ(back, data) << symbols << " " << count;
      if (bytes > 0) {
        EXPECT_FALSE(table.Decode(exact.data(), bytes - 1, count, back.data())) << "a byte is missing";
      }
    }
  }
}

TEST(HuffmanTest, UnseenSymbolsCanBeSent) {
  std::vector<int64_t> counts(256, 0);
  counts[7] = int64_t{1} << 50;
  const HuffmanTable table = HuffmanTable::FromCounts(counts);
  EXPECT_EQ(table.length(7), 1);
  std::vector<uint8_t> all(256), back(256);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint8_t>(i);
  std::vector<char> out(static_cast<size_t>(table.MaxBytes(256)));
  const int64_t bytes = table.Encode(all.data(), 256, out.data());
  ASSERT_TRUE(table.Decode(out.data(), bytes, 256, back.data()));
  EXPECT_EQ(back, all);
}

TEST(HuffmanTest, TextComesBackAndBadTextIsRefused) {
  const HuffmanTable table = HuffmanTable::FromCounts(std::vector<int64_t>{1, 2, 30, 4, 50, 6, 7, 8});
  const absl::StatusOr<HuffmanTable> copy = HuffmanTable::FromText(table.ToText());
  ASSERT_TRUE(copy.ok());
  const std::vector<uint8_t> data = RandomSymbols(500, 8, 1);
  std::vector<char> a(static_cast<size_t>(table.MaxBytes(500))), b(a);
  EXPECT_EQ(table.Encode(data.data(), 500, a.data()), copy->Encode(data.data(), 500, b.data()));
  EXPECT_EQ(a, b);
  for (const char* bad : {"", "a", "aaa", "ab", "aab", "aqq", "a.", "AA", "bbb"}) {
    EXPECT_EQ(HuffmanTable::FromText(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_TRUE(HuffmanTable::FromText("aa").ok());
  EXPECT_TRUE(HuffmanTable::FromText("abb").ok());
}

// quantized-comm.md 2.10: entropy and Huffman bits a value of Gaussian data, maxmin, buckets of 512.
TEST(HuffmanTest, BitsOfGaussianMaxminCodes) {
  const double entropy[] = {0, 0, 1.43, 2.38, 3.416, 0, 0, 0, 7.47};
  const double huffman[] = {0, 0, 1.63, 2.44, 3.439, 0, 0, 0, 7.49};
  constexpr int64_t kElements = 512 * 1000;
  const testing::HostTensor x = testing::HostTensor::Normal(DType::kF32, {kElements}, 5);
  testing::TestStream stream(1);
  for (const int bits : {2, 3, 4, 8}) {
    const MaxminFormat format{bits, 512};
    const BucketWire wire = format.WireOf(kElements);
    const testing::HostTensor bytes(DType::kU8, {wire.bytes()});
    MaxminEncode({.x = x, .wire = bytes, .format = format, .random = {.seed = 3, .purpose = kRandomCodec}}, stream);
    std::vector<uint8_t> codes(static_cast<size_t>(kElements));
    UnpackCodes(bytes.as<uint8_t>() + wire.codes_offset(), kElements, bits, codes.data());
    std::vector<int64_t> counts(size_t{1} << bits, 0);
    for (const uint8_t code : codes) ++counts[code];
    double h = 0;
    for (const int64_t count : counts) {
      const double p = static_cast<double>(count) / kElements;
      h -= count > 0 ? p * std::log2(p) : 0.0;
    }
    EXPECT_NEAR(h, entropy[bits], 0.006) << bits;
    const HuffmanTable table = HuffmanTable::FromCounts(counts);
    EXPECT_NEAR(static_cast<double>(BitsOf(table, counts)) / kElements, huffman[bits], 0.006) << bits;
  }
}

}  // namespace
}  // namespace trainyard::kernels
