#include "kernels/codec/code.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/codec/bit_packing.h"
#include "kernels/codec/blocked_sum.h"
#include "kernels/codec/bucket_summary.h"
#include "kernels/codec/bucket_wire.h"
#include "kernels/codec/random_words.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

TEST(RandomWordsTest, AreThoseOfEveryElementWhereverTheyBegin) {
  const PhiloxKey key{0x123456789ABCDEF0, 7, 11, kRandomCodec, 13};
  for (const uint64_t first : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{3}, uint64_t{1001},
                               (uint64_t{1} << 33) + 6, (uint64_t{1} << 34) - 5}) {
    for (const int64_t count : {1, 2, 5, 15, 16, 17, 61, 64, 127, 129, 1024}) {
      std::vector<uint32_t> buffer(static_cast<size_t>(RandomBufferWords(count)) + 1, 0xABCDABCD);
      const uint32_t* words = RandomWords(key, first, count, buffer.data());
      ASSERT_EQ(buffer.back(), 0xABCDABCDu) << "wrote beyond RandomBufferWords(" << count << ")";
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(words[i], RandomWord(key, first + static_cast<uint64_t>(i))) << first << " + " << i;
      }
    }
  }
}

TEST(RandomWordsTest, AllUnitsAgreeAcrossTheWrapOfTheCounter) {
  const PhiloxKey key{0xFFFFFFFFFFFFFFFF, 0x80000000, 0xFFFF, 0xFFFF, 0xFFFFFFFF};
  const std::vector<internal::DrawBlocks> all = internal::AllDrawBlocks();
  for (const uint32_t first : {0u, 12345u, 0xFFFFFFF0u}) {
    for (const int64_t blocks : {1, 7, 8, 9, 31, 32, 33, 100}) {
      for (const internal::DrawBlocks draw : all) {
        std::vector<uint32_t> words(static_cast<size_t>(4 * blocks + 28));
        draw(key, first, blocks, words.data());
        for (int64_t i = 0; i < 4 * blocks; ++i) {
          const uint32_t block = first + static_cast<uint32_t>(i / 4);
          ASSERT_EQ(words[static_cast<size_t>(i)], RandomBlock(key, block)[static_cast<size_t>(i % 4)]);
        }
      }
    }
  }
}

TEST(BitPackingTest, EveryCodeComesBackFromItsPlace) {
  for (int bits = 1; bits <= 8; ++bits) {
    for (const int64_t count : {0, 1, 3, 7, 8, 9, 63, 64, 65, 511, 1023, 1024, 1025, 3000}) {
      std::vector<uint8_t> codes(static_cast<size_t>(count));
      for (int64_t i = 0; i < count; ++i) {
        codes[static_cast<size_t>(i)] = static_cast<uint8_t>((i * 37 + i / 8) & ((1 << bits) - 1));
      }
      // Exact buffers, so that a sanitizer sees a byte too many.
      std::vector<uint8_t> packed(static_cast<size_t>(PackedBytes(count, bits)), 0xEE);
      PackCodes(codes.data(), count, bits, packed.data());
      // Bit by bit: code j in bits j * bits.
      for (int64_t bit = 0; bit < static_cast<int64_t>(packed.size()) * 8; ++bit) {
        const int64_t code = bit / bits;
        const int expected = code < count ? codes[static_cast<size_t>(code)] >> (bit % bits) & 1 : 0;
        ASSERT_EQ(packed[static_cast<size_t>(bit / 8)] >> (bit % 8) & 1, expected) << bits << " bits, bit " << bit;
      }
      std::vector<uint8_t> back(codes.size(), 0xEE);
      UnpackCodes(packed.data(), count, bits, back.data());
      ASSERT_EQ(back, codes) << bits << " bits, " << count;
    }
  }
}

// shared/methods/quantized-comm.md 5.1.
TEST(BitPackingTest, KnownBytes) {
  const uint8_t two_bits[] = {0, 1, 2, 3};
  uint8_t byte = 0;
  PackCodes(two_bits, 4, 2, &byte);
  EXPECT_EQ(byte, 0xE4);
  const uint8_t three_bits[] = {0, 1, 2, 3, 4, 5, 6, 7};
  uint8_t bytes[3];
  PackCodes(three_bits, 8, 3, bytes);
  EXPECT_EQ(bytes[0], 0x88);
  EXPECT_EQ(bytes[1], 0xC6);
  EXPECT_EQ(bytes[2], 0xFA);
}

TEST(BucketWireTest, LengthsOfTheMethod) {
  const auto bytes = [](int64_t n, int bits) {
    return BucketWire{.elements = n, .bucket_size = 512, .bits = bits, .record_bytes = 8}.bytes();
  };
  EXPECT_EQ(bytes(1000, 4), 520);
  EXPECT_EQ(bytes(250'000, 4), 128'912);
  EXPECT_EQ(bytes(0, 4), 0);
  EXPECT_EQ(bytes(1, 3), 8 + 8);
  // N = 1e6 over 4 ranks, both phases at 4 bits: sent by each rank.
  EXPECT_EQ(3 * bytes(250'000, 4) * 2, 773'472);
}

TEST(BucketSummaryTest, MatchesPlainLoopsAtEveryLength) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {1100}, 5, 3.0);
  const float* values = x.as<float>();
  for (int64_t n = 1; n <= 1100; n += n < 70 ? 1 : 103) {
    float least = values[0], most = values[0], largest = 0;
    long double squares = 0, sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      least = std::fmin(least, values[i]);
      most = std::fmax(most, values[i]);
      largest = std::fmax(largest, std::fabs(values[i]));
      squares += static_cast<long double>(values[i]) * values[i];
      sum += std::fabs(values[i]);
    }
    const internal::BucketRange range = internal::RangeOf(values, n);
    ASSERT_EQ(range.minimum, least) << n;
    ASSERT_EQ(range.maximum, most) << n;
    ASSERT_TRUE(range.is_finite);
    ASSERT_EQ(internal::LargestMagnitude(values, n), largest);
    ASSERT_EQ(internal::EuclideanNorm(values, n), static_cast<float>(std::sqrt(squares))) << n;
    ASSERT_EQ(internal::MeanMagnitude(values, n), static_cast<float>(sum / n)) << n;
  }
}

TEST(BucketSummaryTest, SeesEveryValueThatIsNotFinite) {
  for (const float bad : {kNan, -kNan, kInfinity, -kInfinity}) {
    for (const int64_t n : {1, 31, 32, 33, 100}) {
      for (int64_t at = 0; at < n; ++at) {
        std::vector<float> x(static_cast<size_t>(n), 1.5f);
        x[static_cast<size_t>(at)] = bad;
        ASSERT_FALSE(internal::RangeOf(x.data(), n).is_finite) << bad << " at " << at << " of " << n;
        ASSERT_TRUE(std::isnan(internal::LargestMagnitude(x.data(), n)));
        ASSERT_TRUE(std::isnan(internal::EuclideanNorm(x.data(), n)));
        ASSERT_TRUE(std::isnan(internal::MeanMagnitude(x.data(), n)));
      }
    }
  }
  // Finite values whose norm is not: the code cannot say them.
  const std::vector<float> huge(64, 3e38f);
  EXPECT_TRUE(std::isnan(internal::EuclideanNorm(huge.data(), 64)));
  EXPECT_EQ(internal::LargestMagnitude(huge.data(), 64), 3e38f);
}

TEST(BlockedSumTest, AddsEveryPieceOnceForAnyThreads) {
  for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{100'000}, int64_t{10'000'019}}) {
    for (int threads = 1; threads <= 3; ++threads) {
      testing::TestStream stream(threads);
      const double sum = internal::BlockedSum(count, 512, stream, [](int64_t begin, int64_t end) {
        EXPECT_EQ(begin % 512, 0);
        EXPECT_LE(end - begin, 512);
        return static_cast<double>(end - begin);
      });
      ASSERT_EQ(sum, static_cast<double>(count));
    }
  }
}

// Where flooring position + draw moves a value that lies on a level, or halves are rounded down, this shows it.
TEST(MaxminCodeTest, LevelsStayAndHalvesGoUp) {
  const MaxminBucket bucket{1.0f, 0.0f};
  const float largest_draw = ToUniform(0xFFFFFFFF);
  ASSERT_LT(largest_draw, 1.0f);
  for (int32_t level = 0; level <= 255; ++level) {
    const float x = static_cast<float>(level);
    for (const float draw : {0.0f, 0.5f, largest_draw, kNearestDraw}) {
      ASSERT_EQ(MaxminCode(x, bucket, draw, 255), level) << draw;
    }
    if (level == 255) continue;
    ASSERT_EQ(MaxminCode(x + 0.5f, bucket, kNearestDraw, 255), level + 1);
    ASSERT_EQ(MaxminCode(std::nextafter(x + 0.5f, 0.0f), bucket, kNearestDraw, 255), level);
    ASSERT_EQ(MaxminCode(x + 0.25f, bucket, 0.25f, 255), level);  // up with probability 1/4: draws below it
    ASSERT_EQ(MaxminCode(x + 0.25f, bucket, 0.25f - 0x1p-24f, 255), level + 1);
  }
  EXPECT_EQ(MaxminCode(256.0f, bucket, 0.0f, 255), 255);
}

TEST(MaxminCodeTest, BucketsAtTheEndsOfTheFloats) {
  EXPECT_EQ(MakeMaxminBucket(-0.0f, 0.0f, true, 15).unit, 0.0f);
  EXPECT_FALSE(std::signbit(MakeMaxminBucket(-0.0f, -0.0f, true, 15).minimum));
  EXPECT_TRUE(std::isnan(MakeMaxminBucket(0.0f, 1.0f, false, 15).unit));
  EXPECT_TRUE(std::isnan(MakeMaxminBucket(-3e38f, 3e38f, true, 15).unit)) << "the range overflows";
  EXPECT_GT(MakeMaxminBucket(0.0f, 100 * kSmallestFloat, true, 255).unit, 0.0f) << "a range is never lost";
  // Nothing but a zero range has unit 0, and its decoded value is the minimum itself.
  EXPECT_EQ(MaxminValue(0, MakeMaxminBucket(1e-30f, 1e-30f, true, 15)), 1e-30f);
}

}  // namespace
}  // namespace trainyard::kernels
