#include "kernels/pointwise/swiglu.h"

#include <cmath>

#include "gtest/gtest.h"
#include "kernels/quant/abs_max.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/finite_difference.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::OpCase;
using Values = std::vector<double>;

Values Forward(const Values& gate_up, size_t width) {
  Values y(gate_up.size() / 2);
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t at = i / width * 2 * width + i % width;
    y[i] = gate_up[at + width] * gate_up[at] / (1 + std::exp(-gate_up[at]));
  }
  return y;
}

// What the pass that `amax` saves finds.
std::vector<uint8_t> AmaxBytes(const HostTensor& x, Stream& stream) {
  const HostTensor amax(DType::kF32, {1});
  AbsMax({.x = x, .y = amax}, stream);
  return amax.Bytes();
}

class SwigluTest : public ::testing::TestWithParam<OpCase> {
 protected:
  const DType dtype_ = GetParam().dtype;
  const int64_t rows_ = GetParam().dim(0);
  const int64_t width_ = GetParam().dim(1);
  const HostTensor gate_up_ = HostTensor::Normal(dtype_, {rows_, 2 * width_}, 1, 3.0);
  const HostTensor dy_ = HostTensor::Normal(dtype_, {rows_, width_}, 2);
  const testing::Tolerance tolerance_ = testing::ToleranceFor(dtype_);
  testing::TestStream stream_{2};
};

TEST_P(SwigluTest, ForwardMatchesDoubleReference) {
  const HostTensor y = HostTensor::Filled(dtype_, {rows_, width_}, 99);
  SwigluForward({.gate_up = gate_up_, .y = y}, stream_);
  EXPECT_THAT(y.ToDoubles(), AllNear(Forward(gate_up_.ToDoubles(), static_cast<size_t>(width_)), tolerance_));
}

TEST_P(SwigluTest, BackwardMatchesFiniteDifferences) {
  Values gate_up = gate_up_.ToDoubles();
  const Values dy = dy_.ToDoubles();
  const HostTensor in_place = gate_up_.Copy();
  SwigluBackward({.gate_up = in_place, .dy = dy_, .dgate_up = in_place}, stream_);
  const Values expected = testing::FiniteDifferences(
      gate_up, [&] { return testing::Dot(dy, Forward(gate_up, static_cast<size_t>(width_))); });
  EXPECT_THAT(in_place.ToDoubles(), AllNear(expected, tolerance_));
}

TEST_P(SwigluTest, AmaxIsThatOfTheOutputAndChangesNoBit) {
  const HostTensor y(dtype_, {rows_, width_}), plain(dtype_, {rows_, width_});
  const HostTensor amax = HostTensor::Filled(DType::kF32, {1}, 1e9);
  SwigluForward({.gate_up = gate_up_, .y = plain}, stream_);
  SwigluForward({.gate_up = gate_up_, .y = y, .amax = amax}, stream_);
  EXPECT_EQ(y.Bytes(), plain.Bytes());
  EXPECT_EQ(amax.Bytes(), AmaxBytes(y, stream_));

  const HostTensor in_place = gate_up_.Copy(), plain_gradient(dtype_, {rows_, 2 * width_});
  SwigluBackward({.gate_up = gate_up_, .dy = dy_, .dgate_up = plain_gradient}, stream_);
  SwigluBackward({.gate_up = in_place, .dy = dy_, .dgate_up = in_place, .amax = amax}, stream_);
  EXPECT_EQ(in_place.Bytes(), plain_gradient.Bytes());
  EXPECT_EQ(amax.Bytes(), AmaxBytes(in_place, stream_));
}

TEST_P(SwigluTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor dgate_up(dtype_, {rows_, 2 * width_});
    SwigluBackward({.gate_up = gate_up_, .dy = dy_, .dgate_up = dgate_up}, stream);
    std::vector<uint8_t> bytes = dgate_up.Bytes();
    bytes.push_back(1);  // so that empty shapes compare something
    return bytes;
  });
}

INSTANTIATE_TEST_SUITE_P(All, SwigluTest,
                         ::testing::ValuesIn(testing::OpCases({{1, 1}, {1, 7}, {3, 64}, {5, 129}, {0, 4}})),
                         testing::OpCaseName);

// exp(-gate) overflows below -88: the result must go to zero, not to NaN.
TEST(SwigluEdgeTest, LargeGatesStayFinite) {
  testing::TestStream stream(1);
  const HostTensor gate_up = HostTensor::Of(DType::kF32, {1, 6}, {-1000, -89, 1000, 2, 2, 2});
  const HostTensor dy = HostTensor::Filled(DType::kF32, {1, 3}, 1);
  const HostTensor y(DType::kF32, {1, 3});
  const HostTensor dgate_up(DType::kF32, {1, 6});
  SwigluForward({.gate_up = gate_up, .y = y}, stream);
  SwigluBackward({.gate_up = gate_up, .dy = dy, .dgate_up = dgate_up}, stream);
  EXPECT_THAT(y.ToDoubles(), AllNear({0, 0, 2000}, {.absolute = 1e-30}));
  EXPECT_THAT(dgate_up.ToDoubles(), AllNear({0, 0, 2, 0, 0, 1000}, {.absolute = 1e-30}));
}

}  // namespace
}  // namespace trainyard::kernels
