#include "kernels/codec/piece_math.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

// Around a group of four, and beyond a block of the sum; with `shift`, not aligned.
constexpr int64_t kLengths[] = {0, 1, 3, 4, 7, 1000, 5003};

class PieceMathTest : public ::testing::TestWithParam<DType> {
 protected:
  testing::TestStream stream_{2};
};
INSTANTIATE_TEST_SUITE_P(All, PieceMathTest, ::testing::Values(DType::kF32, DType::kBF16));

TEST_P(PieceMathTest, WidenAddAddsInFloat) {
  for (const int64_t n : kLengths) {
    for (const int64_t shift : {0, 1}) {
      const HostTensor x = HostTensor::Normal(GetParam(), {n + shift}, 1);
      const HostTensor addend = HostTensor::Normal(DType::kF32, {n + shift}, 2, 1e-3);
      const HostTensor sum = HostTensor::Filled(DType::kF32, {n + shift}, 9), copy = sum.Copy();
      WidenAdd({x.view().Slice(shift, n), addend.view().Slice(shift, n), sum.view().Slice(shift, n)}, stream_);
      WidenAdd({x.view().Slice(shift, n), TensorView(), copy.view().Slice(shift, n)}, stream_);
      const std::vector<double> values = x.ToDoubles();
      for (int64_t i = shift; i < n + shift; ++i) {
        const float value = static_cast<float>(values[static_cast<size_t>(i)]);
        ASSERT_EQ(sum.as<float>()[i], value + addend.as<float>()[i]);
        ASSERT_EQ(copy.as<float>()[i], value);
      }
      if (shift == 1) {
        EXPECT_EQ(sum.as<float>()[0], 9.0f);
      }
    }
  }
}

TEST_P(PieceMathTest, RoundSumRoundsOnce) {
  for (const int64_t n : kLengths) {
    const HostTensor x = HostTensor::Normal(DType::kF32, {n}, 1);
    const HostTensor y = HostTensor::Filled(GetParam(), {n}, 9);
    RoundSum({x, y}, stream_);
    EXPECT_EQ(y.ToDoubles(), HostTensor::Of(GetParam(), {n}, x.ToDoubles()).ToDoubles());
  }
}

// Values of very different size: another order has other bits.
TEST_P(PieceMathTest, SumPiecesIsInRankOrderWithTheOwnPieceInItsPlace) {
  for (const int64_t n : kLengths) {
    for (const int ranks : {1, 2, 3, 5}) {
      for (int own = 0; own < ranks; ++own) {
        std::vector<double> all, others;
        for (int rank = 0; rank < ranks; ++rank) {
          const HostTensor row = HostTensor::Normal(GetParam(), {n}, static_cast<uint64_t>(rank), std::pow(37.0, rank));
          const std::vector<double> values = row.ToDoubles();
          all.insert(all.end(), values.begin(), values.end());
          if (rank != own) others.insert(others.end(), values.begin(), values.end());
        }
        const HostTensor filled = HostTensor::Of(GetParam(), {ranks - 1, n}, others);
        const HostTensor out = HostTensor::Of(GetParam(), {n}, {all.begin() + own * n, all.begin() + (own + 1) * n});
        SumPieces({.pieces = filled, .own_piece = out, .own = own, .scale = 1.0f / 3, .out = out}, stream_);
        std::vector<double> expected;
        for (int64_t i = 0; i < n; ++i) {
          float sum = static_cast<float>(all[static_cast<size_t>(i)]);
          for (int rank = 1; rank < ranks; ++rank) sum += static_cast<float>(all[static_cast<size_t>(rank * n + i)]);
          expected.push_back(static_cast<double>(sum * (1.0f / 3)));
        }
        ASSERT_EQ(out.ToDoubles(), HostTensor::Of(GetParam(), {n}, expected).ToDoubles()) << n << " " << ranks;
      }
    }
  }
}

TEST(PieceMathTest, DifferenceAndScale) {
  testing::TestStream stream(1);
  for (const int64_t n : kLengths) {
    const HostTensor a = HostTensor::Normal(DType::kF32, {n}, 1), b = HostTensor::Normal(DType::kF32, {n}, 2);
    const HostTensor difference = a.Copy(), scaled = a.Copy();
    Difference({difference, b, difference}, stream);  // in place
    ScaleInPlace({scaled, 0.3f}, stream);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(difference.as<float>()[i], a.as<float>()[i] - b.as<float>()[i]);
      ASSERT_EQ(scaled.as<float>()[i], a.as<float>()[i] * 0.3f);
    }
  }
}

TEST(PieceMathTest, LossesThatAreNotFiniteAreNotKept) {
  testing::TestStream stream(1);
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  for (const int64_t n : kLengths) {
    const HostTensor value = HostTensor::Normal(DType::kF32, {n}, 1), decoded = HostTensor::Normal(DType::kF32, {n}, 2);
    const HostTensor before = HostTensor::Normal(DType::kF32, {n}, 3);
    for (int64_t i = 2; i < n; i += 5) value.as<float>()[i] = bad[i % 2];
    for (int64_t i = 4; i < n; i += 7) decoded.as<float>()[i] = bad[i % 2];
    const HostTensor kept = before.Copy();
    KeepLost({.value = value, .decoded = decoded, .kept = kept, .divisor = 0.3f}, stream);
    for (int64_t i = 0; i < n; ++i) {
      const float left = (value.as<float>()[i] - decoded.as<float>()[i]) / 0.3f;
      ASSERT_EQ(kept.as<float>()[i], std::isfinite(left) ? left : before.as<float>()[i]);
    }
  }
}

TEST(PieceMathTest, BytesAreCopiedAndClearedExactly) {
  testing::TestStream stream(1);
  for (const int64_t n : {0, 1, 15, 16, 17, 1000, 4099}) {
    for (const int64_t shift : {0, 3, 16}) {
      const HostTensor from = HostTensor::Normal(DType::kF32, {n / 4 + 10}, 1);
      const TensorView bytes(static_cast<char*>(from.view().data()) + shift, DType::kU8, {n});
      const HostTensor to(DType::kU8, {n + shift});
      CopyBytes({bytes, to.view().Slice(shift, n)}, stream);
      EXPECT_EQ(std::memcmp(to.as<uint8_t>() + shift, static_cast<const char*>(from.view().data()) + shift,
                            static_cast<size_t>(n)),
                0);
      if (n < 3) continue;
      const uint8_t first = to.as<uint8_t>()[shift], last = to.as<uint8_t>()[shift + n - 1];
      ZeroBytes(to.view().Slice(shift + 1, n - 2), stream);
      EXPECT_EQ(to.as<uint8_t>()[shift], first);
      EXPECT_EQ(to.as<uint8_t>()[shift + n - 1], last);
      for (int64_t i = 1; i < n - 1; ++i) ASSERT_EQ(to.as<uint8_t>()[shift + i], 0);
    }
  }
}

TEST(PieceMathTest, SameBitsForAnyThreadCount) {
  const HostTensor x = HostTensor::Normal(DType::kBF16, {3, 40'000}, 1);
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor y(DType::kBF16, {40'000});
    SumPieces({.pieces = x.view().Slice(0, 2), .own_piece = x.view().Slice(2, 1), .own = 1, .scale = 0.7f, .out = y},
              stream);
    return y.Bytes();
  });
}

}  // namespace
}  // namespace trainyard::kernels
