#include "kernels/norm/rms_norm.h"

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

constexpr float kEps = 1e-5f;

Values Forward(const Values& x, const Values& w) {
  const size_t cols = w.size();
  Values y(x.size());
  for (size_t r = 0; r < x.size() / cols; ++r) {
    double squares = 0;
    for (size_t c = 0; c < cols; ++c) squares += x[r * cols + c] * x[r * cols + c];
    const double inv = 1 / std::sqrt(squares / static_cast<double>(cols) + double{kEps});
    for (size_t c = 0; c < cols; ++c) y[r * cols + c] = x[r * cols + c] * inv * w[c];
  }
  return y;
}

// What the pass that `amax` saves finds.
std::vector<uint8_t> AmaxBytes(const HostTensor& x, Stream& stream) {
  const HostTensor amax(DType::kF32, {1});
  AbsMax({.x = x, .y = amax}, stream);
  return amax.Bytes();
}

class RmsNormTest : public ::testing::TestWithParam<OpCase> {
 protected:
  HostTensor Workspace() const { return HostTensor(DType::kU8, {RmsNormBackwardWorkspaceBytes(rows_, cols_)}); }
  // inv_rms of x_, as the forward leaves it.
  HostTensor InvRms() {
    HostTensor inv_rms(DType::kF32, {rows_});
    const HostTensor y(dtype_, {rows_, cols_});
    RmsNormForward({.x = x_, .w = w_, .y = y, .inv_rms = inv_rms, .eps = kEps}, stream_);
    return inv_rms;
  }

  const DType dtype_ = GetParam().dtype;
  const int64_t rows_ = GetParam().dim(0);
  const int64_t cols_ = GetParam().dim(1);
  const HostTensor x_ = HostTensor::Normal(dtype_, {rows_, cols_}, 1, 2.0);
  const HostTensor w_ = HostTensor::Normal(dtype_, {cols_}, 2);
  const HostTensor residual_ = HostTensor::Normal(dtype_, {rows_, cols_}, 3);
  const HostTensor dy_ = HostTensor::Normal(dtype_, {rows_, cols_}, 4);
  const testing::Tolerance tolerance_ = testing::ToleranceFor(dtype_);
  testing::TestStream stream_{2};
};

TEST_P(RmsNormTest, ForwardMatchesDoubleReference) {
  const HostTensor y = HostTensor::Filled(dtype_, {rows_, cols_}, 99);
  const HostTensor inv_rms(DType::kF32, {rows_});
  RmsNormForward({.x = x_, .w = w_, .y = y, .inv_rms = inv_rms, .eps = kEps}, stream_);
  EXPECT_THAT(y.ToDoubles(), AllNear(Forward(x_.ToDoubles(), w_.ToDoubles()), tolerance_));
}

TEST_P(RmsNormTest, ForwardWithResidualNormsTheStoredSum) {
  const HostTensor y(dtype_, {rows_, cols_});
  const HostTensor sum = x_.Copy();  // aliases x, as the model uses it
  const HostTensor inv_rms(DType::kF32, {rows_});
  RmsNormForward({.x = sum, .residual = residual_, .sum = sum, .w = w_, .y = y, .inv_rms = inv_rms, .eps = kEps},
                 stream_);
  Values expected = x_.ToDoubles();
  const Values residual = residual_.ToDoubles();
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += residual[i];
  EXPECT_THAT(sum.ToDoubles(), AllNear(expected, tolerance_));
  EXPECT_THAT(y.ToDoubles(), AllNear(Forward(sum.ToDoubles(), w_.ToDoubles()), tolerance_));
}

TEST_P(RmsNormTest, BackwardMatchesFiniteDifferences) {
  Values x = x_.ToDoubles();
  Values w = w_.ToDoubles();
  const Values dy = dy_.ToDoubles();
  const auto loss = [&] { return testing::Dot(dy, Forward(x, w)); };
  const Values differences_x = testing::FiniteDifferences(x, loss);
  const Values differences_w = testing::FiniteDifferences(w, loss);
  const HostTensor inv_rms = InvRms();
  for (const bool with_residual : {false, true}) {
    const HostTensor dx = with_residual ? residual_.Copy() : HostTensor::Filled(dtype_, {rows_, cols_}, 99);
    const HostTensor dw = HostTensor::Filled(with_residual ? dtype_ : DType::kF32, {cols_}, 0.5);
    const HostTensor workspace = Workspace();
    RmsNormBackward({.x = x_,
                     .w = w_,
                     .inv_rms = inv_rms,
                     .dy = dy_,
                     .dresidual = with_residual ? dx.view() : TensorView(),
                     .dx = dx,
                     .dw = dw,
                     .workspace = workspace},
                    stream_);
    Values expected_dx = differences_x;
    const Values residual = residual_.ToDoubles();
    for (size_t i = 0; i < expected_dx.size(); ++i) expected_dx[i] += with_residual ? residual[i] : 0.0;
    Values expected_dw = differences_w;
    for (double& value : expected_dw) value += 0.5;  // accumulates
    // The mean over a single column cancels nearly all of dx; what is left is rounding of numbers around 1 / |x|.
    testing::Tolerance dx_tolerance = tolerance_;
    dx_tolerance.absolute = 2e-5;
    EXPECT_THAT(dx.ToDoubles(), AllNear(expected_dx, dx_tolerance));
    testing::Tolerance dw_tolerance = testing::ToleranceForSum(dw.view().dtype(), 16 * rows_);
    EXPECT_THAT(dw.ToDoubles(), AllNear(expected_dw, dw_tolerance));
  }
}

TEST_P(RmsNormTest, AmaxIsThatOfTheOutputAndChangesNoBit) {
  for (const bool with_residual : {false, true}) {
    const TensorView none;
    const HostTensor sum(dtype_, {rows_, cols_}), y(dtype_, {rows_, cols_}), plain(dtype_, {rows_, cols_});
    const HostTensor inv_rms(DType::kF32, {rows_}), amax = HostTensor::Filled(DType::kF32, {1}, 1e9);
    RmsNormForwardArgs args{.x = x_,
                            .residual = with_residual ? residual_.view() : none,
                            .sum = with_residual ? sum.view() : none,
                            .w = w_,
                            .y = plain,
                            .inv_rms = inv_rms,
                            .eps = kEps};
    RmsNormForward(args, stream_);
    args.y = y;
    args.amax = amax;
    RmsNormForward(args, stream_);
    EXPECT_EQ(y.Bytes(), plain.Bytes());
    EXPECT_EQ(amax.Bytes(), AmaxBytes(y, stream_));

    const HostTensor dx(dtype_, {rows_, cols_}), plain_dx(dtype_, {rows_, cols_}), dw(DType::kF32, {cols_});
    const HostTensor workspace = Workspace();
    RmsNormBackwardArgs back{.x = x_,
                             .w = w_,
                             .inv_rms = inv_rms,
                             .dy = dy_,
                             .dresidual = with_residual ? residual_.view() : none,
                             .dx = plain_dx,
                             .dw = dw,
                             .workspace = workspace};
    RmsNormBackward(back, stream_);
    back.dx = dx;
    back.amax = amax;
    RmsNormBackward(back, stream_);
    EXPECT_EQ(dx.Bytes(), plain_dx.Bytes());
    EXPECT_EQ(amax.Bytes(), AmaxBytes(dx, stream_));
  }
}

TEST_P(RmsNormTest, SameBitsForAnyThreadCount) {
  const HostTensor inv_rms = InvRms();
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor dx(dtype_, {rows_, cols_});
    const HostTensor dw(DType::kF32, {cols_});
    const HostTensor workspace = Workspace();
    RmsNormBackward({.x = x_, .w = w_, .inv_rms = inv_rms, .dy = dy_, .dx = dx, .dw = dw, .workspace = workspace},
                    stream);
    std::vector<uint8_t> bytes = dx.Bytes();
    const std::vector<uint8_t> weight_bytes = dw.Bytes();
    bytes.insert(bytes.end(), weight_bytes.begin(), weight_bytes.end());
    bytes.push_back(1);  // so that empty shapes compare something
    return bytes;
  });
}

// From 960 on: rows that a device's thread holds in more vectors, that a block holds, and that are too long to hold.
INSTANTIATE_TEST_SUITE_P(
    All, RmsNormTest,
    ::testing::ValuesIn(testing::OpCases(
        {{1, 1}, {1, 7}, {3, 64}, {5, 129}, {0, 4}, {600, 3}, {9, 72}, {2, 960}, {1, 1800}, {1, 2200}, {1, 4104}})),
    testing::OpCaseName);

// A row of zeros is where eps matters: finite, and zero.
TEST(RmsNormEdgeTest, ZeroRowGivesZero) {
  testing::TestStream stream(1);
  const HostTensor x(DType::kF32, {1, 5});
  const HostTensor w = HostTensor::Filled(DType::kF32, {5}, 3);
  const HostTensor y = HostTensor::Filled(DType::kF32, {1, 5}, 99);
  const HostTensor inv_rms(DType::kF32, {1});
  RmsNormForward({.x = x, .w = w, .y = y, .inv_rms = inv_rms, .eps = kEps}, stream);
  EXPECT_EQ(y.ToDoubles(), Values(5, 0.0));
  EXPECT_NEAR(inv_rms.ToDoubles()[0], 1 / std::sqrt(1e-5), 1e-3);
}

}  // namespace
}  // namespace trainyard::kernels
