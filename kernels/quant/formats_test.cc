// The four-bit and scale formats, over every code, every border between codes and every kind of special value.
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/quant/e2m1.h"
#include "kernels/quant/e8m0.h"

namespace trainyard::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLevels[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

TEST(E2M1Test, SixteenCodes) {
  for (uint8_t code = 0; code < 8; ++code) {
    EXPECT_EQ(E2M1Value(code), kLevels[code]);
    EXPECT_EQ(E2M1Value(code | 8), -kLevels[code]);
    EXPECT_TRUE(std::signbit(E2M1Value(code | 8)));
    for (const uint32_t word : {0u, 0x80000000u, 0xFFFFFFFFu}) {  // a level is never moved
      EXPECT_EQ(E2M1Code(kLevels[code], word), code);
      EXPECT_EQ(E2M1Code(-kLevels[code], word), code | 8);
    }
    EXPECT_EQ(E2M1Code(kLevels[code]), code);
    EXPECT_EQ(E2M1Code(-kLevels[code]), code | 8);
  }
}

// quartet.md 2.1: the borders, and RNE at each of them (rounding ties up or toward zero fails four of seven).
TEST(E2M1Test, NearestWithTiesToEven) {
  const float borders[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5};
  for (uint8_t code = 0; code < 7; ++code) {
    const float border = borders[code];
    ASSERT_EQ(border, (kLevels[code] + kLevels[code + 1]) / 2);
    for (const uint8_t sign : {0, 8}) {
      const float s = sign == 0 ? 1.0f : -1.0f;
      EXPECT_EQ(E2M1Code(s * border), sign | (code % 2 == 0 ? code : code + 1)) << s * border;
      EXPECT_EQ(E2M1Code(s * std::nextafter(border, 0.0f)), sign | code);
      EXPECT_EQ(E2M1Code(s * std::nextafter(border, kInfinity)), sign | (code + 1));
    }
  }
}

TEST(E2M1Test, SaturatesAndHasNoNan) {
  for (const float large : {std::nextafter(6.0f, 7.0f), 7.0f, 8.0f, 1e30f, kInfinity}) {
    EXPECT_EQ(E2M1Code(large), 7);
    EXPECT_EQ(E2M1Code(-large), 15);
    EXPECT_EQ(E2M1Code(large, 0xFFFFFFFF), 7);
    EXPECT_EQ(E2M1Code(-large, 0), 15);
  }
  EXPECT_EQ(E2M1Code(std::numeric_limits<float>::quiet_NaN()), 7);
  EXPECT_EQ(E2M1Code(std::numeric_limits<float>::quiet_NaN(), 5), 7);
  EXPECT_EQ(E2M1Code(0x1p-149f), 0);
  EXPECT_EQ(E2M1Code(-0x1p-149f), 8);
}

// Every 2^-6 between the levels, with 4096 evenly spaced words: the share that goes up is (u - lo)/(hi - lo).
TEST(E2M1Test, StochasticGoesUpWithTheRightProbability) {
  for (uint8_t code = 0; code < 7; ++code) {
    const float gap = kLevels[code + 1] - kLevels[code];
    for (float u = kLevels[code]; u < kLevels[code + 1]; u += 0x1p-6f) {
      int up = 0;
      for (uint32_t i = 0; i < 4096; ++i) {
        const uint8_t rounded = E2M1Code(-u, (i << 20) | 0x80000);
        ASSERT_TRUE(rounded == (code | 8) || rounded == ((code + 1) | 8)) << u;
        up += rounded == ((code + 1) | 8) ? 1 : 0;
      }
      ASSERT_NEAR(up / 4096.0, (u - kLevels[code]) / gap, 1.01 / 4096) << u;
    }
  }
}

// Both ways to a level, bit for bit: on every border, around it, and beside the ordinary.
TEST(E2M1Test, LevelsAreThoseOfTheCodes) {
  std::vector<float> all = {0.0f, 0x1p-149f, 0x1p-127f, 7.0f, 8.0f, 1e30f, kInfinity, std::nanf("")};
  for (float u = 0; u < 7; u += 0x1p-6f) {
    all.insert(all.end(), {u, std::nextafter(u, 8.0f), std::nextafter(u, -1.0f)});
  }
  for (const float u : all) {
    for (const float v : {u, -u}) {
      ASSERT_EQ(__builtin_bit_cast(uint32_t, E2M1Level(v)), __builtin_bit_cast(uint32_t, E2M1Value(E2M1Code(v)))) << v;
      for (uint32_t word = 0; word < 0xF0000000; word += 0x0FF00FF1) {
        ASSERT_EQ(__builtin_bit_cast(uint32_t, E2M1Level(v, word)),
                  __builtin_bit_cast(uint32_t, E2M1Value(E2M1Code(v, word))))
            << v << " " << word;
      }
    }
  }
}

// quartet.md 5.1.
TEST(E2M1Test, MeanAndVarianceOfStochasticRounding) {
  double sum = 0;
  double squares = 0;
  constexpr uint32_t kWords = 1 << 16;
  for (uint32_t i = 0; i < kWords; ++i) {
    const double value = E2M1Value(E2M1Code(2.3f, i << 16));
    sum += value;
    squares += (value - 2.3) * (value - 2.3);
  }
  EXPECT_NEAR(sum / kWords, 2.3, 1e-4);
  EXPECT_NEAR(squares / kWords, 0.21, 1e-4);
}

TEST(E8M0Test, EveryCodeIsAPowerOfTwoAndComesBack) {
  for (uint32_t code = 0; code < 255; ++code) {
    const float value = E8M0Value(code);
    ASSERT_EQ(value, std::ldexp(1.0f, static_cast<int>(code) - 127));
    ASSERT_EQ(value * E8M0Inverse(code), 1.0f);
    for (const E8M0Rounding rounding : {E8M0Rounding::kFloor, E8M0Rounding::kNearest, E8M0Rounding::kCeil}) {
      ASSERT_EQ(E8M0Code(value, rounding), code);
    }
  }
  EXPECT_TRUE(std::isnan(E8M0Value(255)));
  EXPECT_TRUE(std::isnan(E8M0Inverse(255)));
}

TEST(E8M0Test, BordersBetweenNeighbours) {
  for (uint32_t code = 0; code < 254; ++code) {
    const float below = E8M0Value(code);
    const float above = E8M0Value(code + 1);
    const float next = std::nextafter(below, kInfinity);
    const float last = std::nextafter(above, 0.0f);
    ASSERT_EQ(E8M0Code(next, E8M0Rounding::kFloor), code);
    ASSERT_EQ(E8M0Code(last, E8M0Rounding::kFloor), code);
    ASSERT_EQ(E8M0Code(next, E8M0Rounding::kCeil), code + 1);
    ASSERT_EQ(E8M0Code(last, E8M0Rounding::kCeil), code + 1);
    // The largest float whose square is below 2^(2e+1), and its neighbour.
    const double middle = std::ldexp(std::sqrt(2.0), static_cast<int>(code) - 127);
    float low = static_cast<float>(middle);
    if (static_cast<double>(low) > middle) low = std::nextafter(low, 0.0f);
    ASSERT_EQ(E8M0Code(low, E8M0Rounding::kNearest), code) << low;
    ASSERT_EQ(E8M0Code(std::nextafter(low, kInfinity), E8M0Rounding::kNearest), code + 1) << low;
  }
}

TEST(E8M0Test, SaturatesAndKeepsNan) {
  for (const E8M0Rounding rounding : {E8M0Rounding::kFloor, E8M0Rounding::kNearest, E8M0Rounding::kCeil}) {
    EXPECT_EQ(E8M0Code(0.0f, rounding), 0u);
    EXPECT_EQ(E8M0Code(0x1p-149f, rounding), 0u);
    EXPECT_EQ(E8M0Code(0x1.fffffep127f, rounding), 254u);
    EXPECT_EQ(E8M0Code(kInfinity, rounding), 255u);
    EXPECT_EQ(E8M0Code(std::numeric_limits<float>::quiet_NaN(), rounding), 255u);
  }
}

}  // namespace
}  // namespace trainyard::kernels
