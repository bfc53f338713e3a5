#include "kernels/core/math.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace trainyard::kernels {
namespace {

// Distance in units of the last place of `expected` as a float.
double UlpError(float actual, double expected) {
  const float rounded = static_cast<float>(expected);
  const double ulp = static_cast<double>(std::nextafter(std::fabs(rounded), std::numeric_limits<float>::infinity())) -
                     std::fabs(rounded);
  return std::fabs(actual - expected) / ulp;
}

// The worst error over floats of both signs, every `kStride`th bit pattern, with lowest < x < highest.
template <typename Fast, typename Exact>
double WorstUlp(const Fast& fast, const Exact& exact, float lowest, float highest) {
  constexpr uint32_t kStride = 2003;  // prime: all low bits occur
  double worst = 0;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += kStride) {
    const float x = __builtin_bit_cast(float, static_cast<uint32_t>(bits));
    if (!(x > lowest && x < highest)) continue;
    worst = std::max(worst, UlpError(fast(x), exact(static_cast<double>(x))));
  }
  // Bit patterns are sparse where most arguments lie; an even grid as well.
  const double step = (std::min(highest, 100.0f) - std::max(lowest, -110.0f)) / 1e6;
  for (int i = 1; i < 1000000; ++i) {
    const float x = static_cast<float>(std::max(lowest, -110.0f) + i * step);
    worst = std::max(worst, UlpError(fast(x), exact(static_cast<double>(x))));
  }
  return worst;
}

TEST(MathTest, ExpIsWithinItsBound) {
  const auto fast = [](float x) { return FastExp(x); };
  const auto exact = [](double x) { return std::exp(x); };
  EXPECT_LE(WorstUlp(fast, exact, -87.33f, 88.72f), 2.0);
  EXPECT_LE(WorstUlp(fast, exact, -110.0f, -87.33f), 1.0);  // subnormals: steps of 2^-149
}

TEST(MathTest, ExpAtItsEnds) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(FastExp(0.0f), 1.0f);
  EXPECT_EQ(FastExp(-0.0f), 1.0f);
  EXPECT_EQ(FastExp(-infinity), 0.0f);
  EXPECT_EQ(FastExp(-1e30f), 0.0f);
  EXPECT_EQ(FastExp(88.73f), infinity);
  EXPECT_EQ(FastExp(infinity), infinity);
  EXPECT_TRUE(std::isnan(FastExp(std::nanf(""))));
}

TEST(MathTest, SigmoidIsWithinItsBound) {
  EXPECT_LE(WorstUlp([](float x) { return FastSigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); }, -87.3f,
                     std::numeric_limits<float>::infinity()),
            4.0);
  EXPECT_EQ(FastSigmoid(0.0f), 0.5f);
  EXPECT_EQ(FastSigmoid(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_EQ(FastSigmoid(std::numeric_limits<float>::infinity()), 1.0f);
  EXPECT_TRUE(std::isnan(FastSigmoid(std::nanf(""))));
}

TEST(MathTest, TanhIsWithinItsBound) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_LE(WorstUlp([](float x) { return FastTanh(x); }, [](double x) { return std::tanh(x); }, -infinity, infinity),
            3.0);
  EXPECT_EQ(FastTanh(infinity), 1.0f);
  EXPECT_EQ(FastTanh(-infinity), -1.0f);
  EXPECT_TRUE(std::isnan(FastTanh(std::nanf(""))));
}

}  // namespace
}  // namespace trainyard::kernels
