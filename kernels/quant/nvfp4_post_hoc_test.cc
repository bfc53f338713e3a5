#include "kernels/quant/nvfp4_post_hoc.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/quant/e2m1.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;
using testing::OpCase;

struct Quantized {
  Quantized(const HostTensor& x, Stream& stream, PhiloxKey random = {.purpose = kRandomTest})
      : pseudo(DType::kBF16, {x.view().dim(0), x.view().dim(1) / 16}),
        tensor_scale(DType::kF32, {1}),
        packed(DType::kU8, {x.view().dim(0), x.view().dim(1) / 2}),
        scales(DType::kF8E4M3, {x.view().dim(0), x.view().dim(1) / 16}),
        values(HostTensor::Filled(x.view().dtype(), {x.view().dim(0), x.view().dim(1)}, 99)) {
    NvPostHocQuantize({.x = x,
                       .random = random,
                       .pseudo_scales = pseudo,
                       .tensor_scale = tensor_scale,
                       .packed = packed,
                       .scales = scales,
                       .values = values},
                      stream);
  }
  double Scale(int64_t group) const { return WidenToFloat(scales.as<Float8E4M3>()[group]); }

  HostTensor pseudo, tensor_scale, packed, scales, values;
};

// quartet2.md 2.6: 9.40e-3, and no shrinkage. Steps truncated instead of rounded would give 9.35e-3 with four bits and
// 9.75e-3 with three; without the factor S the shrinkage is 7.7e-3.
TEST(NvPostHocTest, ErrorOnGaussianValues) {
  if (testing::DeviceUnderTest() == Device::kCuda) {
    GTEST_SKIP() << "millions of draws, slow on an emulated device; SameBitsAsOnCpu says that they are the CPU's";
  }
  const HostTensor x = HostTensor::Normal(DType::kF32, {512, 2048}, 11);
  testing::TestStream stream(2);
  const Quantized q(x, stream);
  const double scale = q.tensor_scale.as<float>()[0];
  double square = 0;
  double product = 0;
  double error = 0;
  for (int64_t i = 0; i < x.view().size(); ++i) {
    const double v = x.as<float>()[i];
    const double y = q.values.as<float>()[i] * scale;
    square += v * v;
    product += v * y;
    error += (v - y) * (v - y);
  }
  EXPECT_NEAR(error / square, 9.40e-3, 0.015 * 9.40e-3);
  EXPECT_NEAR(product / square, 1, 5e-4);
}

// E8M3 of a positive double.
double ToThreeBits(double value) {
  int exponent = 0;
  const double mantissa = std::frexp(value, &exponent);
  return std::ldexp(std::nearbyint(mantissa * 16) / 16, exponent);
}

// Codes and pseudo scales by the formula in double, but for quotients that fall on the other side of a border; scales
// one of the two neighbours of pseudo / s32.
TEST(NvPostHocTest, MatchesTheFormula) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {32, 256}, 4, 0.02);
  testing::TestStream stream(1);
  const Quantized q(x, stream);
  const double s32 = q.tensor_scale.as<float>()[0];
  double largest = 0;
  int64_t matched = 0;
  const int64_t groups = x.view().size() / 16;
  for (int64_t g = 0; g < groups; ++g) {
    const float* v = x.as<float>() + g * 16;
    double top = 0;
    for (int i = 0; i < 16; ++i) top = std::max(top, std::abs(static_cast<double>(v[i])));
    const double step = ToThreeBits(top / kEdenClip);
    double squares = 0;
    double products = 0;
    bool same = true;
    for (int i = 0; i < 16; ++i) {
      const double u = v[i] / step;
      const double level = E2M1Value(E2M1Code(static_cast<float>(u)));
      squares += u * u;
      products += u * level;
      same = same && q.values.as<float>()[g * 16 + i] == level * q.Scale(g);
    }
    matched += same ? 1 : 0;
    const double pseudo = ToFloat(q.pseudo.as<BFloat16>()[g]);
    if (same) {
      EXPECT_NEAR(pseudo, step * squares / products, 0.004 * pseudo);
    }
    largest = std::max(largest, pseudo);
    EXPECT_NEAR(q.Scale(g), pseudo / s32, 0.125 * q.Scale(g));
  }
  EXPECT_GE(matched, groups - 2);
  EXPECT_EQ(s32, static_cast<float>(largest) / 256.0f);
}

TEST(NvPostHocTest, ScalesAreUnbiased) {
  if (testing::DeviceUnderTest() == Device::kCuda) {
    GTEST_SKIP() << "millions of draws, slow on an emulated device; SameBitsAsOnCpu says that they are the CPU's";
  }
  const HostTensor x = HostTensor::Normal(DType::kF32, {1, 64}, 5);
  testing::TestStream stream(1);
  constexpr int kDraws = 20000;
  double means[4] = {};
  for (uint32_t draw = 0; draw < kDraws; ++draw) {
    const Quantized q(x, stream, {.step = draw, .purpose = kRandomTest});
    for (int g = 0; g < 4; ++g) means[g] += q.Scale(g) / kDraws;
  }
  const Quantized q(x, stream);
  for (int g = 0; g < 4; ++g) {
    const double expected = static_cast<double>(ToFloat(q.pseudo.as<BFloat16>()[g])) / q.tensor_scale.as<float>()[0];
    // A draw is off by at most a step, an eighth of the scale; its standard deviation is at most half of that.
    EXPECT_NEAR(means[g], expected, 4 * expected / 16 / std::sqrt(kDraws)) << g;
  }
}

TEST(NvPostHocTest, ZerosTinyTensorsAndNan) {
  testing::TestStream stream(1);
  for (const float size : {0.0f, 1e-40f, 1e-36f}) {
    const Quantized q(HostTensor::Filled(DType::kF32, {1, 32}, static_cast<double>(size)), stream);
    EXPECT_EQ(q.tensor_scale.as<float>()[0], 1.0f);
    EXPECT_EQ(q.packed.Bytes(), std::vector<uint8_t>(16, 0));
    EXPECT_EQ(q.Scale(0), 1.0);
  }
  // A group of zeros beside one that is not: its stand-in step must not set the tensor's scale.
  HostTensor x(DType::kF32, {1, 32});
  x.as<float>()[20] = 1e-3f;
  const Quantized beside(x, stream);
  EXPECT_NEAR(beside.tensor_scale.as<float>()[0], 1e-3 / 6 / 256, 0.05e-3 / 6 / 256);
  EXPECT_EQ(beside.Scale(0), 1.0);
  EXPECT_EQ(beside.values.as<float>()[0], 0.0f);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    x.as<float>()[3] = bad;
    EXPECT_TRUE(std::isnan(Quantized(x, stream).tensor_scale.as<float>()[0]));
  }
}

class NvPostHocCaseTest : public ::testing::TestWithParam<OpCase> {};
INSTANTIATE_TEST_SUITE_P(All, NvPostHocCaseTest, ::testing::ValuesIn(testing::OpCases({{1, 16}, {32, 1152}})),
                         testing::OpCaseName);

TEST_P(NvPostHocCaseTest, SameBitsForAnyThreadsPackedAndInPlace) {
  const std::vector<int64_t>& shape = GetParam().shape;
  const HostTensor x = HostTensor::Normal(GetParam().dtype, shape, 8);
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const Quantized q(x, stream);
    const HostTensor back = HostTensor::Filled(GetParam().dtype, shape, 5);
    Fp4GroupsDequantize({.packed = q.packed, .scales = q.scales, .values = back}, stream);
    EXPECT_EQ(back.Bytes(), q.values.Bytes());
    const HostTensor in_place = x.Copy();
    NvPostHocQuantize({.x = in_place,
                       .random = {.purpose = kRandomTest},
                       .pseudo_scales = q.pseudo,
                       .tensor_scale = q.tensor_scale,
                       .values = in_place},
                      stream);
    EXPECT_EQ(in_place.Bytes(), q.values.Bytes());
    std::vector<uint8_t> all = q.values.Bytes();
    for (const HostTensor* more : {&q.packed, &q.scales, &q.tensor_scale}) {
      const std::vector<uint8_t> bytes = more->Bytes();
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  });
}

TEST_P(NvPostHocCaseTest, SameBitsAsOnCpu) {
  const HostTensor x = HostTensor::Normal(GetParam().dtype, GetParam().shape, 9, 0.3);
  testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
    const Quantized q(x, stream, {.seed = 4, .step = 3, .purpose = kRandomTest, .tensor = 2});
    std::vector<uint8_t> all = q.values.Bytes();
    for (const HostTensor* more : {&q.pseudo, &q.packed, &q.scales, &q.tensor_scale}) {
      const std::vector<uint8_t> bytes = more->Bytes();
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  });
}

}  // namespace
}  // namespace trainyard::kernels
