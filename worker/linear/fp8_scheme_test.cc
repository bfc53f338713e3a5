#include "worker/linear/fp8_scheme.h"

#include <algorithm>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/number_format.h"
#include "kernels/testing/all_near.h"
#include "worker/linear/testing/layer.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::Float8E4M3;
using kernels::Float8E5M2;
using kernels::testing::AllNear;
using testing::Gradients;
using testing::Layer;
using testing::Values;

// The recipe in double: round(v 448 / amax) amax / 448.
template <typename Format>
Values Rounded(const Values& v) {
  double amax = 1e-10;
  for (const double value : v) amax = std::max(amax, std::abs(value));
  Values y;
  for (const double value : v) {
    // The product in float, as the scheme has it: ties of the double would differ.
    const float scaled = static_cast<float>(value) * (448.0f / static_cast<float>(amax));
    y.push_back(WidenToFloat(kernels::RoundNearest<Format>(scaled, kernels::Overflow::kSaturate)) * amax / 448);
  }
  return y;
}

template <typename Format>
Gradients Expected(const Layer& layer) {
  Layer rounded(layer.site.rows, layer.site.in, layer.site.out, layer.site.storage);
  const Values dy = Rounded<Format>(layer.dy.ToDoubles());
  const Values x = Rounded<Float8E4M3>(layer.x.ToDoubles());
  const Values w = Rounded<Float8E4M3>(layer.w.ToDoubles());
  const int64_t rows = layer.site.rows;
  const int64_t in = layer.site.in;
  const int64_t out = layer.site.out;
  Gradients expected;
  expected.dx = testing::Product(dy, {out, 1}, w, {in, 1}, rows, in, out);
  expected.dw = testing::Product(dy, {1, out}, x, {in, 1}, out, in, rows);
  expected.db.resize(static_cast<size_t>(out));
  for (size_t i = 0; i < dy.size(); ++i) expected.db[i % expected.db.size()] += dy[i];
  return expected;
}

Values Twice(Values values) {
  for (double& value : values) value *= 2;
  return values;
}

// Each operand of each product rounded with its own scale: fails if a scale is forgotten, if the gradient has the wrong
// format, or if the bias gradient is that of the unrounded dy. Odd sizes: nothing has groups.
template <typename Format>
void ExpectRecipe(spec::LinearFp8::GradientFormat format) {
  const auto scheme = MakeFp8Scheme({.gradient_format = format});
  for (const DType storage : {DType::kF32, DType::kBF16}) {
    const Layer layer(29, 37, 21, storage);
    const auto stored = kernels::testing::ToleranceForSum(storage, 64);
    const auto sums = kernels::testing::ToleranceForSum(DType::kF32, 64);
    EXPECT_THAT(layer.Forward(*scheme), AllNear(layer.DenseForward(Rounded<Float8E4M3>(layer.x.ToDoubles()),
                                                                   Rounded<Float8E4M3>(layer.w.ToDoubles())),
                                                stored));
    const Gradients expected = Expected<Format>(layer);
    const Gradients once = layer.Backward(*scheme);
    EXPECT_THAT(once.dx, AllNear(expected.dx, stored));
    EXPECT_THAT(once.dw, AllNear(expected.dw, sums));
    EXPECT_THAT(once.db, AllNear(expected.db, sums));
    const Gradients twice = layer.Backward(*scheme, {}, 2);
    EXPECT_THAT(twice.dw, AllNear(Twice(expected.dw), sums));
    EXPECT_THAT(twice.db, AllNear(Twice(expected.db), sums));
  }
}

TEST(Fp8SchemeTest, E4M3Gradients) {
  ExpectRecipe<Float8E4M3>(spec::LinearFp8::GradientFormat::kE4M3);
}

TEST(Fp8SchemeTest, E5M2Gradients) {
  ExpectRecipe<Float8E5M2>(spec::LinearFp8::GradientFormat::kE5M2);
}

// The errors of Gaussian operands: E4M3 has 1/16 of a step of 2^-3 relative to the power below, E5M2 four times the
// square of it.
TEST(Fp8SchemeTest, ErrorsOfTheProducts) {
  const Layer layer(256, 128, 96);
  const auto e4m3 = MakeFp8Scheme({});
  const auto e5m2 = MakeFp8Scheme({.gradient_format = spec::LinearFp8::GradientFormat::kE5M2});
  const Gradients dense = layer.DenseBackward();
  const double forward = testing::RelativeError(layer.Forward(*e4m3), layer.DenseForward());
  const double weight = testing::RelativeError(layer.Backward(*e4m3).dw, dense.dw);
  const double weight_e5m2 = testing::RelativeError(layer.Backward(*e5m2).dw, dense.dw);
  RecordProperty("forward", std::to_string(forward));
  RecordProperty("weight", std::to_string(weight));
  RecordProperty("weight_e5m2", std::to_string(weight_e5m2));
  EXPECT_GT(forward, 1e-3);
  EXPECT_LT(forward, 1.6e-3);
  EXPECT_NEAR(weight, forward, 0.1 * forward);
  EXPECT_NEAR(weight_e5m2, 2.5 * weight, 0.5 * weight);  // (1 + 4) / 2
}

TEST(Fp8SchemeTest, AnyNumberOfRowsAndThreads) {
  const auto scheme = MakeFp8Scheme({});
  const Layer layer(64, 48, 80);
  EXPECT_EQ(layer.Forward(*scheme, {}, 3).size(), 3 * 80u);
  const Values one = testing::AllResults(layer, *scheme, {}, 1);
  EXPECT_EQ(testing::AllResults(layer, *scheme, {}, 2), one);
  EXPECT_EQ(testing::AllResults(layer, *scheme, {}, 3), one);
}

}  // namespace
}  // namespace trainyard::linear
